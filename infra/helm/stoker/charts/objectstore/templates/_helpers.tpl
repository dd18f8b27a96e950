{{- define "objectstore.name" -}}
{{ .Release.Name }}-objectstore
{{- end -}}

{{- define "objectstore.selector" -}}
app.kubernetes.io/name: objectstore
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "objectstore.labels" -}}
{{ include "objectstore.selector" . }}
app.kubernetes.io/part-of: stoker
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}
