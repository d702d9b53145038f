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
{{- $usual := dict
  "processor" (dict "drain" "30s")
  "envoy" (dict "drain" (printf "%ds" (sub (int .Values.terminationGracePeriodSeconds) 60)) "max_heap_bytes" (include "weir.heap" . | int64)) -}}
{{- $fixed := dict
  "state_dir" "/var/lib/weir"
  "gateway" (dict "listen" "0.0.0.0:10000")
  "processor" (dict "socket" "/run/weir/weir.sock")
  "envoy" (dict "admin" "127.0.0.1:10002" "ca_file" .Values.envoy.caFile)
  "admin" (dict "listen" "0.0.0.0:10001") -}}
{{- if .Values.tls.secret }}{{ $_ := set $fixed.gateway "tls" (dict "cert" "/etc/weir-tls/tls.crt" "key" "/etc/weir-tls/tls.key") }}{{ end -}}
{{- toYaml (mergeOverwrite $usual (deepCopy .Values.config) $fixed) }}
{{- end }}

{{- /* Two thirds of Envoy's limit of memory, in bytes; 0, which is no limit, where that is less than Envoy needs, or not in Mi or Gi. */ -}}
{{- define "weir.heap" -}}
{{- $limit := dig "limits" "memory" "" .Values.envoy.resources | toString -}}
{{- $bytes := 0 -}}
{{- if regexMatch "^[0-9]+[MG]i$" $limit -}}
{{- $unit := ternary 1048576 1073741824 (hasSuffix "Mi" $limit) -}}
{{- $bytes = div (mul (regexFind "^[0-9]+" $limit) $unit 2) 3 -}}
{{- end -}}
{{- if ge (int64 $bytes) 67108864 }}{{ $bytes }}{{ else }}0{{ end -}}
{{- end }}

{{- define "weir.mounts" -}}
- { name: config, mountPath: /etc/weir, readOnly: true }
- { name: run, mountPath: /run/weir }
- { name: state, mountPath: /var/lib/weir }
- { name: tmp, mountPath: /tmp }
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "weir.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}
