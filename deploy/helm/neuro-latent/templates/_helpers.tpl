{{- /* Pieces that several objects have. A release is `helm install NAME`; everything in it begins with that name. */}}

{{- define "neuro-latent.selector" -}}
{ app.kubernetes.io/name: neuro-latent, app.kubernetes.io/instance: {{ .Release.Name }} }
{{- end }}

{{- define "neuro-latent.labels" -}}
app.kubernetes.io/name: neuro-latent
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* KServe takes the release's own name for the server. */}}
{{- define "neuro-latent.gateway" -}}
{{ .Release.Name }}{{ if .Values.kserve.enabled }}-gateway{{ end }}
{{- end }}

{{- define "neuro-latent.image" -}}
{{- $tag := .Values.image.tag | default (ternary "gpu" "cpu" .Values.gpu) }}
{{- .Values.image.repository }}{{ with .Values.image.digest }}@{{ . }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "neuro-latent.claim" -}}
{{ .Values.repository.existingClaim | default (printf "%s-repository" .Release.Name) }}
{{- end }}

{{- /* Not empty where there is something to serve: the first step of an installation has only the claim. */}}
{{- define "neuro-latent.serves" -}}
{{- if or .Values.repository.version .Values.repository.bundled .Values.kserve.storageUri }}yes
{{- else if not .Values.repository.loader }}
{{- $ways := "repository.loader=true puts one there, repository.bundled=true takes the image's" }}
{{- fail (printf "repository.version is empty: name the folder on the claim that is served (v1); %s" $ways) }}
{{- end }}
{{- end }}

{{- /* A total, which autoscalers divide by the replicas. */}}
{{- define "neuro-latent.work" -}}
sum(avg_over_time(neuro_latent_slots_in_use{namespace={{ .Release.Namespace | quote }}}[1m]))
+ sum(avg_over_time(neuro_latent_queue_length{namespace={{ .Release.Namespace | quote }}}[1m]))
{{- end }}

{{- define "neuro-latent.scaling-behavior" -}}
scaleUp: { stabilizationWindowSeconds: 0, policies: [{ type: Percent, value: 100, periodSeconds: 30 }] }
scaleDown: { stabilizationWindowSeconds: 300, policies: [{ type: Pods, value: 1, periodSeconds: 60 }] }
{{- end }}

{{- /* Together with `hardened`, what the policy `restricted` of a namespace asks for. */}}
{{- define "neuro-latent.pod" -}}
# a pause in which load balancers forget the pod (5 s), the drain (30 s), and what is left
terminationGracePeriodSeconds: 45
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "neuro-latent.nodes" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or .Values.gpu .Values.tolerations }}
tolerations:
  {{- if .Values.gpu }}
  - { key: nvidia.com/gpu, operator: Exists, effect: NoSchedule }
  {{- end }}
  {{- with .Values.tolerations }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}

{{- define "neuro-latent.hardened" -}}
lifecycle: { preStop: { sleep: { seconds: 5 } } }
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{- define "neuro-latent.env" -}}
{{- range $name, $value := .Values.env }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end }}

{{- /* The server, but for its name, its ports' names and where its repository is. */}}
{{- define "neuro-latent.server" -}}
image: {{ include "neuro-latent.image" . }}
args: # the image's own command, and more options
  - serve
  - --tritonserver=/opt/tritonserver/bin/tritonserver
  - --repository={{ ternary "/mnt/models" "/models" .Values.kserve.enabled }}
  - --host=0.0.0.0
  - --no-gateway
  - --ready-timeout=300
  - --drain-timeout=30
  - --restarts=0
  - --show-log
  {{- range .Values.server.args }}
  - {{ . | quote }}
  {{- end }}
env:
  - name: NEURO_LATENT_FEEDBACK_URL
    valueFrom: { secretKeyRef: { name: {{ .Values.existingSecret }}, key: feedback-url, optional: true } }
  {{- with include "neuro-latent.env" . }}{{ indent 2 . }}{{ end }}
startupProbe: { httpGet: { path: /v2/health/ready, port: 8000 }, periodSeconds: 5, failureThreshold: 60 }
readinessProbe: { httpGet: { path: /v2/health/ready, port: 8000 }, periodSeconds: 5, timeoutSeconds: 3 }
livenessProbe: { httpGet: { path: /v2/health/live, port: 8000 }, periodSeconds: 10, timeoutSeconds: 5 }
{{- $resources := deepCopy .Values.server.resources }}
{{- if .Values.gpu }}{{ $_ := set $resources.limits "nvidia.com/gpu" 1 }}{{ end }}
resources: {{- toYaml $resources | nindent 2 }}
{{ include "neuro-latent.hardened" . }}
volumeMounts:
  - { name: home, mountPath: /var/lib/neuro-latent }
  - { name: temporary, mountPath: /tmp }
  - { name: shared-memory, mountPath: /dev/shm }
  {{- if not (or .Values.kserve.enabled .Values.repository.bundled) }}
  - { name: repository, mountPath: /models, subPath: {{ .Values.repository.version | quote }}, readOnly: true }
  - { name: repository, mountPath: /repositories, readOnly: true }
  {{- end }}
{{- end }}

{{- define "neuro-latent.server-volumes" -}}
- { name: home, emptyDir: {} }
- { name: temporary, emptyDir: { sizeLimit: 256Mi } }
- { name: shared-memory, emptyDir: { medium: Memory, sizeLimit: 256Mi } }
{{- end }}

{{- /* Who may ask Triton, which wants no key: `kubectl label namespace NAME neuro-latent/triton=allowed`. */}}
{{- define "neuro-latent.triton-ingress" -}}
- from:
    - namespaceSelector: { matchLabels: { neuro-latent/triton: allowed } }
    {{- if .Values.kserve.enabled }}
    - podSelector: { matchLabels: {{ include "neuro-latent.selector" . }} }
    {{- end }}
  ports: [{ port: 8000 }, { port: 8001 }]
{{ include "neuro-latent.metrics-ingress" (list . 8002) }}
{{- end }}

{{- define "neuro-latent.metrics-ingress" -}}
- from:
    - namespaceSelector:
        matchLabels: { kubernetes.io/metadata.name: {{ (index . 0).Values.networkPolicy.monitoringNamespace }} }
  ports: [{ port: {{ index . 1 }} }]
{{- end }}

{{- define "neuro-latent.egress-ports" -}}
- { port: 53, protocol: UDP }
- { port: 53, protocol: TCP }
{{- range .Values.networkPolicy.egressPorts }}
- { port: {{ . }}, protocol: TCP }
{{- end }}
{{- end }}
