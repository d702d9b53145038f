{{- define "weir.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "weir.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "weir.labels" -}}
{{ include "weir.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* What the chart sets, over what it is told, since ports and paths have to fit the pod; under it, what fits a pod that drains. */ -}}
{{- define "weir.config" -}}
{{- $usual := dict "processor" (dict "drain" "30s") -}}
{{- $fixed := dict
  "state_dir" "/var/lib/weir"
  "gateway" (dict "listen" "0.0.0.0:10000")
  "processor" (dict "socket" "/run/weir/weir.sock")
  "envoy" (dict "admin" "127.0.0.1:10002" "ca_file" .Values.envoy.caFile)
  "admin" (dict "listen" "0.0.0.0:10001") -}}
{{- toYaml (mergeOverwrite $usual (deepCopy .Values.config) $fixed) }}
{{- end }}

{{- define "weir.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}
