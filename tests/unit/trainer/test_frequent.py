"""The sentences that stand in many training texts."""

from neuro_latent_trainer.frequent import LEAST_TIMES, MOST_SENTENCES, frequent_sentences


def test_a_sentence_counts_once_a_text_and_only_where_it_stands_in_several() -> None:
    texts = ["Be brief. Use a table.", "Use a table. Be brief. Be brief.", "Be brief.", "My secret. Use a table.", ""]
    assert frequent_sentences(texts) == {"Be brief.": 3, "Use a table.": 3}
    assert frequent_sentences(texts[: LEAST_TIMES - 1]) == {}


def test_the_most_frequent_are_kept_where_there_are_too_many() -> None:
    texts = [" ".join(f"Say {n}." for n in range(MOST_SENTENCES + 5))] * 3 + ["Say 7. Say 9."]
    found = frequent_sentences(texts)
    assert len(found) == MOST_SENTENCES
    assert list(found)[:2] == ["Say 7.", "Say 9."]
