{{- define "trainrun.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "trainrun" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-trainrun" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Objects without a namespace: an operator of one namespace may have sisters of the same name. */}}
{{- define "trainrun.clusterName" -}}
{{- if .Values.watchNamespace -}}
{{- printf "%s-%s" (include "trainrun.fullname" .) .Release.Namespace -}}
{{- else -}}
{{- include "trainrun.fullname" . -}}
{{- end -}}
{{- end -}}

{{- define "trainrun.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "trainrun.fullname" .) -}}
{{- end -}}

{{- define "trainrun.selector" -}}
app.kubernetes.io/name: trainrun
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "trainrun.labels" -}}
{{ include "trainrun.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "trainrun.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "trainrun.subject" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "trainrun.serviceAccount" . }}
    namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* Values that contradict each other stop the installation, each with one sentence. */}}
{{- define "trainrun.validate" -}}
{{- if and .Values.image.tag .Values.image.digest -}}
{{- fail (printf "image.tag=%s and image.digest=%s name two images; leave one of them empty" .Values.image.tag .Values.image.digest) -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.create=false needs serviceAccount.name: the namespace's default account would get the operator's rights; name an account that exists" -}}
{{- end -}}
{{- if and .Values.metrics.rules.enabled (not .Values.metrics.serviceMonitor.enabled) -}}
{{- fail "metrics.rules.enabled=true needs metrics.serviceMonitor.enabled=true: alerts about metrics that nobody collects would fire for ever" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.metrics.serviceMonitor.enabled (not .Values.networkPolicy.metricsFrom) -}}
{{- fail "networkPolicy.enabled=true with metrics.serviceMonitor.enabled=true needs networkPolicy.metricsFrom: the policy would keep Prometheus out; name the namespace or the pods that it runs in" -}}
{{- end -}}
{{- end -}}
