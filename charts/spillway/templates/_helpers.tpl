{{- /* Names, labels and images. "Component" is `controller`, `webhook`, `agent` or `test`. */ -}}

{{- define "spillway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "spillway.fullname" -}}
{{- $name := include "spillway.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* The name of a component's objects: (list root component). */ -}}
{{- define "spillway.component" -}}
{{- printf "%s-%s" (include "spillway.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{- /* The name of an object of the cluster: names of namespaces and releases alike must not clash. */ -}}
{{- define "spillway.clusterName" -}}
{{- printf "%s-%s" (include "spillway.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- /* What selects the pods of a component, for good: (list root component). */ -}}
{{- define "spillway.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "spillway.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* All labels of an object: (list root component). */ -}}
{{- define "spillway.labels" -}}
{{- $root := index . 0 -}}
{{ include "spillway.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: spillway
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The name of a ServiceAccount: (list root component). */ -}}
{{- define "spillway.serviceAccount" -}}
{{- $account := (get (index . 0).Values (index . 1)).serviceAccount -}}
{{- if $account.create -}}
{{- default (include "spillway.component" .) $account.name -}}
{{- else -}}
{{- default "default" $account.name -}}
{{- end -}}
{{- end -}}

{{- /* The image of a component: (list root component). */ -}}
{{- define "spillway.image" -}}
{{- $root := index . 0 -}}
{{- $image := (get $root.Values (index . 1)).image -}}
{{- $registry := default $image.registry $root.Values.global.imageRegistry -}}
{{- $name := ternary (printf "%s/%s" $registry $image.repository) $image.repository (ne $registry "") -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "spillway.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ if kindIs "map" . }}{{ .name | quote }}{{ else }}{{ . | quote }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Who may scrape: the `from` of a NetworkPolicy. */ -}}
{{- define "spillway.scrapers" -}}
- namespaceSelector:
    matchLabels: {{- toYaml .Values.networkPolicy.metricsNamespaceLabels | nindent 6 }}
{{- end -}}

{{- /* What makes an object a part of `helm test`, gone when that is over. */ -}}
{{- define "spillway.hook" -}}
helm.sh/hook: test
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end -}}
