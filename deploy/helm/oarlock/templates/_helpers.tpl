{{- define "oarlock.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- end }}

{{- define "oarlock.labels" -}}
app.kubernetes.io/name: oarlock
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "oarlock.selector" -}}
app.kubernetes.io/name: oarlock
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "oarlock.image" -}}{{ .root.Values.image.registry }}{{ .name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}{{- end }}

{{/* What a pod may do: nothing beyond its own process. */}}
{{- define "oarlock.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "oarlock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Settings, then secrets as files: neither the database's password nor a key stands in an environment. */}}
{{- define "oarlock.environment" -}}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- range $name, $from := .Values.secrets }}
- {name: {{ $name }}_FILE, value: /run/secrets/{{ $name }}/value}
{{- end }}
{{- if .Values.postgresql.enabled }}
- {name: DATABASE_URL_FILE, value: /run/secrets/postgresql/url}
{{- end }}
{{- if .Values.queue.enabled }}
- {name: REDIS_URL_FILE, value: /run/secrets/queue/url}
{{- end }}
{{- end }}

{{- define "oarlock.mounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- range $name, $from := .Values.secrets }}
- {name: secret-{{ $name | lower | replace "_" "-" }}, mountPath: /run/secrets/{{ $name }}, readOnly: true}
{{- end }}
{{- if .Values.postgresql.enabled }}
- {name: postgresql, mountPath: /run/secrets/postgresql, readOnly: true}
{{- end }}
{{- if .Values.queue.enabled }}
- {name: queue, mountPath: /run/secrets/queue, readOnly: true}
{{- end }}
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "oarlock.volumes" -}}
- name: data
  persistentVolumeClaim: {claimName: {{ .Values.data.existingClaim | default (printf "%s-data" (include "oarlock.name" .)) }}}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
{{- range $name, $from := .Values.secrets }}
- name: secret-{{ $name | lower | replace "_" "-" }}
  secret: {secretName: {{ $from.secret }}, items: [{key: {{ $from.key }}, path: value}]}
{{- end }}
{{- if .Values.postgresql.enabled }}
- name: postgresql
  secret: {secretName: {{ include "oarlock.name" . }}-postgresql, items: [{key: url, path: url}]}
{{- end }}
{{- if .Values.queue.enabled }}
- name: queue
  secret: {secretName: {{ include "oarlock.name" . }}-queue, items: [{key: url, path: url}]}
{{- end }}
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "oarlock.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: [{{ range $i, $name := . }}{{ if $i }}, {{ end }}{name: {{ $name }}}{{ end }}]
{{- end }}
{{- end }}

{{/* How long a pod may take to end: longer than a job, so that a rolling update loses none. */}}
{{- define "oarlock.grace" -}}{{ add (int (default 1800 (get .Values.settings "OARLOCK_JOB_LIMIT_S"))) 60 }}{{- end }}
