"""Words that tell languages in Latin letters apart: function words, and what requests are made of.

A word may stand in several lists and then tells nothing between them, so English words that another language has too
("die", "son", "was") belong into the English list as well. Accents may be missing where people type in a hurry:
:mod:`neuro_latent_core.guard.language` looks words up with and without them.
"""

from typing import Final

ENGLISH: Final = """
is will list spanish french german italian portuguese russian chinese japanese korean arabic turkish about above
after again against ai all almost also always am an and another any anyone anything are aren't around as ask at away
back be because been before being below best better between both but by can can't cannot come could day did didn't
different do does doesn't doing don't done down during each easy else end english enough even ever every everything
example explain few find first fix for free from fun get give go going good got great had has have having he hello
help her here hers him his how i'm i've idea ideas if in instead into isn't it it's its job just keep kids know last
less let let's letter like little long look make many maybe me mean means more most much must my name need never new
next nice non not nothing now of off ok old on once one only or other our out over own page part past people per
place please problem put quick quite real really recipe right same say see send she short should show simple since
small so some someone something still story such tell than thank thanks that that's the their them then there these
they thing things this those through time tips to together too top try two under until up us use used using very vs
want was way we well were what what's when where which while who whom whose why with without word words work world
would write year years yes yet you your ad al ale art bald chat comment con dan dare dag dat den des die dies dim ed
et fare fin fur gut hair hat i'd ill kid las lee los main male man mare mas men met min mit mon no note pain pan par
plan pod pour pro sale sat sec ser sin sole solo son sous sur sus tag tan ten tri van via war wed wo woman bid bit
bin car dans elf fast gift hell kind rat rot stern tod toll wand ha hi mal ta te ti take er um week may level law im
difference ate mar due cat far care sense net till plus brief tom resume era face propose drug han com kim sam plane
dang gun banana ex mine anna god todo uber inter bare jake dana lima lite leg pot teen dig chem mesh barn bat lang
pos sino vain mint mod nor id tee encore aide jo says kong nova var wants days dont minutes weeks month read three
left school months customer order night team said second stop home names half office wrong actually cant money number
hours late house flat call nobody feel room already person lines light sentence think family coffee change sound
company tomorrow teacher gets output we're card asked eat price pay cold lost wedding run talk return meeting works
friday questions rules times birthday hates third book writing doesnt mother morning game city kitchen stuff play
food sleep keys keeps friend buy song staff notes report worth speech found group yesterday big twice rent move fair
poem black answers town language trip today sell knows makes numbers looks white you're mostly love moving wife life
board daughter customers sunday party bakery speak minute wrote blue floor takes paper hand slow came business baby
went learn project points funny train age true running saturday made split cut whole broken reading street told size
ago inside goes brother practice asking landlord closed opening stuck voice march rooms books monday ones making died
he's user count shows sheet friends website happens bread empty shift wall exactly sign angry teach adults dark
coming file failed side checklist bike noise grandma tired dead scene sounds stay sorry complaint instructions cook
characters gone type alone notice market building fire rain examples hate subject june losing working understand lose
explained insurance eggs account live high cost users cheese sick getting letters sometimes gives country hour
looking music decide bring asks seconds summer students fill dear safe needs pages rate crying smells watch bought
stock tonight scared moved weather history historical spring door cheap close beginners essay effects breakfast lunch
dinner workout healthy travel guide garden homework science water dog skills career loud boil tree soup fish chicken
rice shoes
"""
"""With words that other languages have too; single letters tell nothing."""

FUNCTION: Final = """
a an the this that these those and or but nor so yet if then than as of at by for from in into on onto to with within
about above across after again against along already also although always am among any anyone anything are around
away back be because been before behind being below beside besides best better between beyond both can could did do
does doing done down during each either else enough etc even ever every everyone everything few get gets getting give
gives go goes going good got had has have having he hello help helps hence her here hers hey hi him his how however i
i'd i'll i'm i've im is it it's its itself just keep kind last least less let let's lets like lot lots made make
makes many may maybe me mean might mine more most much must my myself near need needs new next now off ok okay once
one ones only other others our ours out over own per perhaps please pls plz put quite rather really right same say
see seem shall she should show since some somebody someone something soon still such sure tell thank thanks that's
their theirs them themselves there there's they thing things though through thus too toward u under until up upon us
use used using ur very via vs want wants was way we well were what what's whats when where whether which while who
whom whose why will wont would write writes writing wrote you you're your yours yourself explain describe create
generate fix improve list find suggest recommend compare discuss provide summarize summarise rewrite rephrase edit
answer act add build check come define design develop draft look plan teach think try turn work ask asked can't don't
doesn't didn't isn't aren't wasn't won't shouldn't wouldn't couldn't haven't hasn't
"""
"""Words of English prompts that say nothing of what they are about."""

STARTS: Final = """
act add answer are build can check convert correct could create debug describe does draft edit explain find fix
generate give help how improve make meaning outline please pronounce proofread rank recommend rephrase reply rewrite
say should shorten show simplify solve spell suggest summarise summarize tell translate turn use what what's whats
when where which who why would write
"""
"""A request that begins with one of these is English whatever foreign words it is about."""

OTHERS: Final = {
    "de": """
        in so er woche letztes letzte letzten jahr monat drei vier danke dank worauf wieviele besser wieso welchen
        schöne jemand erstelle einen ist aber alle allem allen aller alles als am an auch auf aus bei beim bekomme
        bekommen beste besten bin bis bitte bräuchte brauche damit dann darf das dass deine dem den denn der des
        deutsch die dir doch du durch ein eine einem einer eines einfach erkläre erklär es etwas euch fasse für fuer
        ganz geburtstag geht gegen gib gibt gut guten habe haben hallo hast hat heißt hilf hilfe hier ich ideen ihm
        ihn ihr ihre im jahre jeden jetzt kann kannst kein keine kleine koche kochen können könnte kurz kurze kurzen
        lang lernen liste lustige lustigen mache machen mal man mehr mein meine meinem meinen meiner mich mir mit
        morgen muss nach nächste neue neuen nicht nichts noch nur ob obwohl oder ohne plane rezept schon schreib
        schreibe schreiben sehr sein seine seit sich sie sind soll sollte spruch tage tun über ueber uhr um und uns
        unser unsere unserem unterschied verbessere vergleich vergleiche viel vom von vor vorschläge wann war warum
        was wegen weil welche welcher welches wenn werden wie wieder wieviel will wir wird wo wochen woher wohin wozu
        wurde zeit zu zum zur zwei zwischen übersetze nenne zeige empfiehl gedicht bewerbung kündigung anleitung
        geschichte""",
    "fr": """
        quand eu lieu merci beaucoup toi bonne journée ton mes plus a sont l'art à ai aide ainsi ans alors après au
        aux aussi avec avoir bonjour ça car ce cela ces c'est cet cette chez chien ceux combien comme comment contre
        corrige courte dans de depuis des différence deux dois donc donne du écris elle en encore enfant enfants
        entre est et être explique expliquer exercices faire fais fait faut français idées il ils j'ai je jour jours
        jusqu'à la le les lettre leur liste lui ma mais meilleur meilleurs mieux moi mon moins même ne nos notre nous
        on ont ou où par pas pendant peu peut peux poème pour pourquoi propose puis que quel quelle quelles quels
        quelque qu'est qu'il qu'ils quoi qui qu'un recette rédige résumé sa sans ses semaine si soit son sous suis
        sur ta te tes tous tout toute toutes traduis très trois trop tu un une va vers veux voir vos votre vous y
        l'on cherche besoin cadeau histoire""",
    "es": """
        no sin reconoce ella mañana ayudas puedes inglés hola buenas rápida aprender cómo al algo algunos año años
        antes así aún ayuda ayúdame bien breve buena bueno cada carta casa como con corta corto corrige cuál cual
        cuáles cuando cuándo cuánto cuanto cuento dame de del desde después día días diferencia dime dónde donde dos
        durante el ellos en ensayo entre era eres es escribe escribir esta está estas este esto estos estoy explica
        explícame fácil forma frases fue gracias hace hacer hago hasta hay haz hijo hijos historia idea ideas la las
        le les lista lo los más me mejor mejores mi mis mucha mucho muy nada necesito niño niños nos nuestra nuestro
        o otra otro para pero plan poco poema por porque puede puedo que qué quiero quien quién quiénes receta regalo
        resume resumen resumir sé se semana ser si sí sobre son soy su sus también tengo tiene todo todos tres tu tus
        un una unas uno unos usar va vez viaje ver y ya yo""",
    "pt": """
        agora ajuda ainda ao aos apenas as até bem bom cada carta casa com como criança crianças da das de dela dele
        depois dias dicas diferença do dos duas e ela ele eles em entre era escreva escreve escrever essa esse esta
        está estou eu explica explique faça fazer faz feito foi gosto ideias inglês isso isto já lista mais mas me
        melhor melhores menos meu meus minha minhas muito na não nao nas nem no nos nossa nosso num numa o onde os ou
        para pela pelo pelos poema pode por porque pra preciso presente qual quais quando quanto quantos que quem
        quero receita redação resuma resumo se seis sem semana ser seu seus sobre são só sua suas também te tem tenho
        ter texto toda todos tudo três um uma usar vai vem viagem você voce vocês""",
    "it": """
        in con tema mattina giorno giorni vedere due ciao favore breve differenza abbiamo ai al alla alle allo anche
        anni aiutami bambini bambino bella bene casa che chi ci come consigli cosa così cui da dal dalla dalle dammi
        degli dei del della delle dello deve devo di dove e è era essere fa fare ha hai hanno ho i idee il inglese io
        la le lettera lista lo loro ma meglio mi mia mie miei migliore migliori mio molto nel nella nelle nei no noi
        non nostra o ogni oggi per perché perche più piu poesia poi posso prima qual quale quali quando quanta quanto
        quattro quella quello questa queste questo qui regalo ricetta riassumi riassunto se sei senza settimana si
        sia solo sono spiega spiegami scrivi scrivere sta storia su sua sul sulla suo ti tra traduci tre tutti tutto
        tu un una uno va viaggio voglio vorrei""",
    "nl": """
        in groep werkstuk aan alle als alleen altijd ben beste beter bij brief daar dag dan dat de deze dit doen door
        doet dus een eenvoudig er gaat gedicht geef geen goed goede graag heb hebben heeft help het hoe hoeveel hoi
        hij ideeën ik is je jij jou jullie kan keer kinderen korte kun kunnen kunt leg leuke leuk lijst maak maar
        maken man me meer met mij mijn moet moeten mooie na naar nederlands niet niks nieuwe nog nu of om omdat onder
        ons onze ook op over recept schrijf schrijven snel steeds te tegen tot tussen twee uit uitleg uur vaak van
        vanaf veel verhaal verjaardag verschil vertaal voor vraag waar waarom wanneer was wat week welke werkt weten
        wie wij wil worden wordt zelf zich zijn zin zo zonder zou""",
    "pl": """
        co kosztuje ile jak zrobic dziecka albo ale bardzo bez być był było chcę ci czy czym dla dlaczego do dobre
        dobry dwa dzieci ich im ja jaka jaki jakie jako jej jego jest jestem już każdy kiedy kilka krótki która które
        który list ma mam mi mnie mogę moja moje może mój można musi na najlepsze najlepszy napisz nad nas nasz nie
        niż od o po pod podaj pomoc pomóż pomysły potrzebuję proszę prezent przed przepis przez przetłumacz przy
        różnica się są siebie sobie streszczenie stwórz swoje ta tak tam te tego temat ten tej to trzy tylko tym u w
        wiersz wiem wyjaśnij wymień wytłumacz z za zrobić zaplanuj ze że żeby życzenia""",
    "cs": """
        a aby ale ani až bez báseň bych být co čo dárek děti dětmi do dopis ja jak jaká jaké jaký jako jaky je jeho
        jej jejich jen jsem jsi jsme jsou k kam kde kdo kdy když která které který ma mám máme má mezi mi mne mně
        moje můj může možná můžu na nad napiš napsat nápady nebo než není nejlepší o od pak po pod podle potřebuji
        pro proč pred před při přelož recept rozdíl s se si shrň svůj ta tak také tam ten to toho tom tři u už v vás
        velmi ve vysvětli vzor z za že nie som sú prečo ako pre napíš medzi""",
    "sv": """
        alla allt att av bara bra bättre barn de den det detta där då dig din du eller en ett fem finns för fr från
        ge gör göra ha hade han har hej hjälp hon hur hålla i idéer igen ingen inte ja jag kan kommer kort lista lite
        man med mellan men mer mig min mina mitt mot mycket måste namn ni nu nya när någon något och också om på
        recept resa sig sin ska skillnaden skillnad skriv skriva som så till tips två under upp ut utan vad var
        varför vara vem vi vid vill vilka vilken vilket än är år åt över förklara förslag översätt dikt""",
    "da": """
        alle at av af barn bare bedre bedste ble blev bliver brev da de deg dei dem den der deres det dette dig din
        ditt du eller en er et etter efter fikk for forklar forskel forskellen forskjell forskjellen fra får få gi
        gjør gør god gode ha han har hej hei hjælp hjelp hun hva hvad hvem hvilke hvilken hvis hvor hvordan hvorfor
        ideer ikke ikkje ind inn jeg kan kom kort lage lav lave lag lidt litt man med meg mellom mellem mer mig min
        mine mit mitt mod må måtte når nogle noe noen og også om opp oppskrift opskrift over på seg selv si sig sin
        skal skriv skrive som søknad så til tilbud uden uten ud ut var ved vi vil være år dikt digt""",
    "ro": """
        a acasă acest ai al ale am are asta au avea bine că când care ce cel cea cele cei cine copii copil cu cum cât
        câte da dar de decât dacă despre diferența dintre din doi două e ei ea el este eu explică fără fac face fi
        fie fost idei în îmi imi îl iar in încă între intre la le lista lui mai mă mea meu mi mult ne nevoie noi
        noștri nu o ori pe pentru pot plan poezie până prin rețetă retete sa să sale sau scrie scrisoare se si și
        spune sunt tot toate trebuie tradu trei un una unei unor unui vreau vă zi zile""",
    "hu": """
        a amely az ahogy akkor alatt általa angol arra azt be csak de egy egyik el elmagyarázd én és ez ezt fel
        fordítsd gyerek gyerekeknek hány ha hogy hogyan hol igen írj ír is itt jó kell kellene képlet készíts két ki
        könnyű közötti között különbség le leg legjobb lehet lesz levelet levél magyar magyarázd már meg mert mi
        miért mikor milyen minden mint minta most nagyon ne nekem nem nélkül össze ötletek receptje sok segíts
        szerint szeretnék tudok után vagy van verset volt""",
    "fi": """
        ai anna ei eli en enää että hän he hei ilman itse ja jaan jo joka jos jotka joten kanssa kaikki keksi kerro
        kiitos kirje kirjoita koska kuin kuinka kun lapsille lapsi lista lyhyt lyhyesti me mikä mika miksi millainen
        millä minä minun missä mistä mitä mita miten mutta myös ne niin niitä noin nyt ohje olen oli olisi on ovat
        paljon paras parhaat päivän resepti runo saa se sen selitä sinä suomeksi suunnittele sitä tai tämä tarvitsen
        tee teen tehdä tekee tiivistä vai vain vielä viikon voi voin voiko yksi ystävälle kai miksei ennen""",
    "et": """
        aga ei eesti et ja kas kes kirjuta kui kuidas kus ma mida miks minu mis mu ning oma on palun sa see selgita
        siis ta tee või väga vahe""",
    "lv": """
        ar bet būt ir kā kāda kāds kas ko kur lai lūdzu man mans nav ne no par pēc pie recepte un uz uzraksti vai
        vēstule vēl""",
    "lt": """
        apie ar aš bet būti iš ir jei kad kaip kas kodėl kokia koks kur lietuvių man mano ne nėra noriu nuo parašyk
        per prašau receptas su tai tarp už yra""",
    "tr": """
        acaba ama anlat ara arasındaki aynı az bana bazı belki ben benim bir biraz birkaç biri bu bunu çok çocuk
        çocuğa da daha de değil diye en fark farkı gibi gün günlük güzel hakkında hangi hariç hem hazırla her hiç
        için içinde iki ile ise iyi kaç kadar kısa kim konu lazım listele mektup mı mi mu mü nasıl ne neden neler
        nedir nerede niye o olan olarak olur on örneği önce öner önerisi planı sana sen sonra söyle şey şiir tarifi
        tüm üç üzerine ve veya var verir yap yapılır yapmak yaz yazı yazar yemek yeni yok yüzde ya zaman açıkla
        özetle çevir""",
    "vi": """
        anh ba bài bao bằng bé bị bởi cách cái cần cho chỉ chị chúng có con còn của cũng cùng đã đang để đến đi điều
        được đơn đó đâu em gì giải giữa giúp hai hãy hay hoặc hơn không khi kế hoạch là làm lên lịch một mà mẫu mình
        món mới muốn nào này nấu nên nếu ngày ngắn nghĩa người nhà như nhất những nhưng nhiều ở phải ra rất sao sẽ sự
        tại tất tạo thế thì theo thích thơ thư tiếng tìm tóm tắt tôi trẻ trong trước tự từ tuổi và vào về vẽ vì việc
        viết với""",
    "id": """
        karangan cerita lima ada adalah agar aku akan anak antara apa apakah atas atau bagaimana bagi bahasa bantu
        banyak baru belum berapa berikan bisa boleh buat buatkan buatlah cara contoh cuma cuti dalam dan dapat dari
        daripada dengan di dia dong gaya gimana harga hari harus ide itu ini jadi jangan jelaskan jika juga kamu kami
        karena kata kapan kapal kau ke kenapa kerja kepada kita kalau kalo kurang lagi lebih macam maka makan mana
        masih mau mengapa menjadi mereka mudah naik nak nama nggak gak oleh orang pada pakai paling perbedaan bedanya
        beda perlu pernah puisi punya resep resipi resmi rencana ringkas saat saja sama sampai sangat satu saya
        sebuah sebagai secara sedang sehari sekali selama semua seorang seperti sering siapa sini suka sudah supaya
        surat tahun tapi tanpa telah tentang terjemahkan tetapi tiap tidak tiga tolong tulis tuliskan tunjukkan tips
        untuk waktu yang""",
    "tl": """
        ako akong ang anong at ay ba bakit dahil gawa gumawa gusto hindi ito iyong ka kailangan kasi kay ko kong kung
        lang magkano mabait maikling may mga mo na nang nasa natin ng ni niya paano pano para pag po pero sa saan si
        sino siya sulat tungkol yung""",
    "sw": """
        bila cha hii hiyo huu jinsi kama kati katika kazi kila kuhusu kuna kutoka kwa kwanza kwenda kwenye la lakini
        mimi mtoto mwezi na nataka nifanyeje ni nini nisaidie sana tafadhali tofauti wa wakati wangu ya yangu za
        andika barua eleza""",
    "hr": """
        sastavak razred ali ako bez bi bih biti bio bolje da dan dana do ga gdje gde ih ili imam isplati između
        izmedju je jedan jer još ja kada kad kako kao koja koje koji koliko kroz kući li ma mi mne mogu možeš moj
        moja može mu na najbolji najbolje nakon napiši napisem napravi ne nema nego nije niti od objasni ovo po pismo
        pjesmu pod pre prije pomozi pošto predloži prevedi recept razlika sa sam samo se su sve svoj što šta ta te to
        treba trebam tri u uz za zašto zasto zbog želim""",
    "ca": """
        al d'una d'un als amb aquest aquesta aquestes això bé carta com dels demanar diferència dona'm el els em
        entre és escriu està estic explica fer fes ha hi i idees jo la les meu meva més molt nen nit no o per però
        perquè poema què quan quina quins que recepta sense seu sobre són tinc tota tots una unes vull""",
    "eu": """
        artean ata baina baino bat bezala da dago dira dut edo ere eta ez gabe hau horiek idatzi nire nola nor plana
        zer zergatik batentzat behar daude haurrekin lagunentzat errezeta azaldu""",
    "la": """
        ad atque autem causae cum de est et ex haec hoc id ille in latinam linguam mihi non nunc per pro quae quam
        qui quid quo quod quomodo quoque sed sunt tamen ut vel verte""",
    "eo": """
        al ankaŭ ĉiu ĉu de el en ekzistas estas inter kaj kiam kiel kie kio kiu kiuj la mi mia mian nova novajn ol
        pli por povas pri sed skribu sen tiu vi""",
    "hi": """
        aap acha aur bahut banana banane banao banau batao bhai bhi chahiye ek ghar hai hain ho hoga hota hu hun ka
        kab kahan kaise karna karne karo karta karti karu kaun kaunsa ke ki kisi ko kripya kuch kya kyon kyu kyun
        likh likho liye mai main me mein mera mere meri mujhe na nahi nahin pe par pehle raha rahe rahi sakta sakte
        samjhao se shuru tak theek tha tumhara uska usko wala woh ya yaar ye yeh""",
    "ru": """
        bez byl bylo chem chto chtoby dlya drug eto gde ili kak kakaya kakie kakoy kogda kotoryj kotory kto kupit
        luchshe menya mne mogu moi moj moya mozhno napishi napisat nado nam nas ne nelzya net nuzhno obyasni ochen
        odin pochemu pomogi pozhaluysta pro rasskazhi rebenku sam sdelat sebe skolko tak takoe tebe tolko tozhe ubrat
        vse vsego vopros vremya zachem""",
    "el": """
        apo alla afto den diafora einai exei fiah gia giati grapse gramma ixe kai kala kano mas meta mia mou na pou
        poia pos prepei sto stin sou ta ti tis ton thelo xoris xronia""",
    "ar": """
        abgha akteb al aktob bas bel ben betaa bidi elly el enta eh ana ezay ezzay fe fi hal hatha kaif kayfa keef
        kef kif kwayes lal leh lesh law mesh mish min momken mumkin shu shlon wel wain ya yaani""",
}
"""By ISO 639-1 code; ``da`` is Danish and Norwegian, ``cs`` has Slovak, ``hr`` Serbian and Bosnian, ``id`` Malay;
``hi``, ``ru``, ``el`` and ``ar`` are what people type with Latin letters."""

RARE: Final = frozenset({"ar", "ca", "el", "eo", "et", "eu", "la", "lt", "lv", "sw", "tl"})
"""Of these languages one word says nothing."""
