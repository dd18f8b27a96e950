{{- define "stoker.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "stoker.selector" -}}
app.kubernetes.io/name: stoker
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: worker
{{- end -}}

{{- define "stoker.labels" -}}
{{ include "stoker.selector" . }}
app.kubernetes.io/part-of: stoker
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "stoker.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stoker.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "stoker.name" .) -}}
{{- end -}}

{{- define "stoker.jobsNamespace" -}}
{{- .Values.jobs.namespace | default .Release.Namespace -}}
{{- end -}}

{{- define "stoker.amqpSecret" -}}
{{- if .Values.rabbitmq.enabled -}}
{{ .Values.rabbitmq.existingSecret | default (printf "%s-rabbitmq" .Release.Name) }}
{{- else -}}
{{ .Values.amqp.existingSecret }}
{{- end -}}
{{- end -}}

{{- define "stoker.amqpKey" -}}
{{- if .Values.rabbitmq.enabled -}}url{{- else -}}{{ .Values.amqp.key }}{{- end -}}
{{- end -}}

{{- define "stoker.storeSecret" -}}
{{- if .Values.store.existingSecret -}}
{{ .Values.store.existingSecret }}
{{- else if .Values.objectstore.enabled -}}
{{ printf "%s-store" (include "stoker.name" .) }}
{{- end -}}
{{- end -}}

{{- define "stoker.storeEndpoint" -}}
{{- if .Values.store.endpoint -}}
{{ .Values.store.endpoint }}
{{- else if .Values.objectstore.enabled -}}
{{ printf "http://%s-objectstore.%s.svc:9000" .Release.Name .Release.Namespace }}
{{- end -}}
{{- end -}}

{{- define "stoker.workerStoreSecret" -}}
{{- if .Values.store.workerSecret -}}
{{ .Values.store.workerSecret }}
{{- else if .Values.objectstore.enabled -}}
{{ .Values.objectstore.existingSecret | default (printf "%s-objectstore" .Release.Name) }}
{{- end -}}
{{- end -}}

{{/* The worker's configuration file. */}}
{{- define "stoker.config" -}}
{{- $cluster := dict "namespace" (include "stoker.jobsNamespace" .) "runAsUser" (int .Values.jobs.runAsUser) "unschedulable" .Values.jobs.unschedulable -}}
{{- with .Values.jobs.serviceAccount }}{{ $_ := set $cluster "serviceAccount" . }}{{ end -}}
{{- with include "stoker.storeSecret" . }}{{ $_ := set $cluster "storeSecret" . }}{{ end -}}
{{- with .Values.jobs.secrets }}{{ $_ := set $cluster "secrets" . }}{{ end -}}
{{- $class := dict "name" .Values.jobs.class "driver" "kubernetes" "cluster" $cluster "ceiling" .Values.jobs.ceiling "defaults" .Values.jobs.defaults -}}
{{- if or .Values.jobs.imagesAllow .Values.jobs.imagesDigests -}}
{{- $images := dict "digests" .Values.jobs.imagesDigests -}}
{{- with .Values.jobs.imagesAllow }}{{ $_ := set $images "allow" . }}{{ end -}}
{{- $_ := set $class "images" $images -}}
{{- end -}}
{{- $config := dict
  "stateDirectory" "/var/lib/stoker"
  "slots" (int .Values.worker.slots)
  "waiting" (int .Values.worker.waiting)
  "drain" (printf "%ds" (int .Values.worker.drainSeconds))
  "classes" (list $class)
  "defaultClass" .Values.jobs.class
  "http" (dict "listen" (printf "0.0.0.0:%d" (int .Values.http.port)))
  "log" (dict "format" "json" "level" .Values.worker.logLevel) -}}
{{- if include "stoker.amqpSecret" . }}{{ $_ := set $config "amqp" (dict "urlEnv" "AMQP_URL") }}{{ end -}}
{{- if .Values.journal.existingSecret }}{{ $_ := set $config "journal" (dict "urlEnv" "STOKER_JOURNAL") }}{{ end -}}
{{- with include "stoker.storeEndpoint" . -}}
{{- $_ := set $config "objectStore" (dict "endpoint" . "region" $.Values.store.region "accessKeyEnv" "STORE_ACCESS_KEY" "secretKeyEnv" "STORE_SECRET_KEY") -}}
{{- end -}}
{{- if .Values.mstc.enabled -}}
{{- $mstc := dict "class" .Values.jobs.class -}}
{{- if .Values.mstc.rest.enabled }}{{ $_ := set $mstc "listen" (printf "0.0.0.0:%d" (int .Values.mstc.rest.port)) }}{{ end -}}
{{- $_ := set $config "mstc" $mstc -}}
{{- end -}}
{{- mergeOverwrite $config (deepCopy .Values.worker.config) | toPrettyJson -}}
{{- end -}}
