// Package deploy holds the Kubernetes example, and the tests that keep it honest: every manifest is decoded strictly into the types
// of its own API, and what one says of another must hold.
package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// manifests are all objects of the folder.
type manifests struct {
	configs  map[string]*corev1.ConfigMap
	services map[string]*corev1.Service
	claims   map[string]*corev1.PersistentVolumeClaim
	jobs     []*batchv1.Job
	runs     []*testRun
	names    map[string]bool // "Kind/namespace/name"
}

func read(t *testing.T) *manifests {
	t.Helper()
	m := &manifests{configs: map[string]*corev1.ConfigMap{}, services: map[string]*corev1.Service{}, claims: map[string]*corev1.PersistentVolumeClaim{}, names: map[string]bool{}}
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, doc := range bytes.Split(b, []byte("\n---\n")) {
			at := fmt.Sprintf("%s, document %d", file, i+1)
			var meta struct {
				metav1.TypeMeta `json:",inline"`
				Metadata        metav1.ObjectMeta `json:"metadata"`
			}
			if err := yaml.Unmarshal(doc, &meta); err != nil {
				t.Fatalf("%s: %v", at, err)
			}
			var into any
			switch kind := meta.APIVersion + " " + meta.Kind; kind {
			case "v1 Namespace":
				into = new(corev1.Namespace)
			case "v1 ConfigMap":
				o := new(corev1.ConfigMap)
				into, m.configs[meta.Metadata.Name] = o, o
			case "v1 Service":
				o := new(corev1.Service)
				into, m.services[meta.Metadata.Name] = o, o
			case "v1 PersistentVolumeClaim":
				o := new(corev1.PersistentVolumeClaim)
				into, m.claims[meta.Metadata.Name] = o, o
			case "batch/v1 Job":
				o := new(batchv1.Job)
				into, m.jobs = o, append(m.jobs, o)
			case "k6.io/v1alpha1 TestRun":
				o := new(testRun)
				into, m.runs = o, append(m.runs, o)
			default:
				t.Fatalf("%s: no schema for %q: add its type", at, kind)
			}
			if err := yaml.UnmarshalStrict(doc, into); err != nil {
				t.Errorf("%s: %v", at, err)
			}
			name := meta.Kind + "/" + meta.Metadata.Namespace + "/" + meta.Metadata.Name
			if m.names[name] {
				t.Errorf("%s: %s is there twice", at, name)
			}
			m.names[name] = true
			if !dnsName.MatchString(meta.Metadata.Name) {
				t.Errorf("%s: %q is no name of an object", at, meta.Metadata.Name)
			}
			if meta.Kind != "Namespace" && meta.Metadata.Namespace != "tminus" {
				t.Errorf("%s: namespace %q", at, meta.Metadata.Namespace)
			}
		}
	}
	return m
}

func TestManifests(t *testing.T) {
	m := read(t)
	if len(m.runs) != 1 || len(m.jobs) != 1 {
		t.Fatalf("%d TestRuns and %d Jobs, want one of each", len(m.runs), len(m.jobs))
	}
	run, job := m.runs[0], m.jobs[0]
	if err := run.check(); err != nil {
		t.Error(err)
	}
	bad := func(format string, a ...any) { t.Errorf(format, a...) }

	// The script and what it is told.
	script := run.Spec.Script.ConfigMap
	if script == nil || m.configs[script.Name] == nil || m.configs[script.Name].Data[script.File] == "" {
		t.Fatalf("the TestRun's script %+v is in no config map", script)
	}
	example, err := os.ReadFile("../examples/distributed.js")
	if err != nil {
		t.Fatal(err)
	}
	if got := m.configs[script.Name].Data[script.File]; got != string(example) {
		t.Errorf("script.yaml has another %s than examples: indent examples/distributed.js by 4 and put it there", script.File)
	}
	pods := fmt.Sprint(run.Spec.Parallelism)
	if !slices.Contains(strings.Fields(run.Spec.Arguments), "PODS="+pods) {
		t.Errorf("arguments %q do not tell the script of %s pods", run.Spec.Arguments, pods)
	}
	config := envFrom(t, m, run.Spec.Runner.EnvFrom)
	for _, word := range regexp.MustCompile(`__ENV\.([A-Z_]+)`).FindAllStringSubmatch(string(example), -1) {
		if name := word[1]; config[name] == "" && name != "PODS" && name != "TMINUS_ZERO" {
			t.Errorf("the script asks for %s, which tminus-run does not have", name)
		}
	}
	var services []struct{ Region, URL string }
	if err := json.Unmarshal([]byte(config["SERVICES"]), &services); err != nil || len(services) == 0 {
		t.Errorf("SERVICES: %v, %v", services, err)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`).MatchString(config["TMINUS_RUN"]) {
		t.Errorf("TMINUS_RUN: %q", config["TMINUS_RUN"])
	}

	// One verdict: of the same run, from the same Kafka, over as many pods.
	if len(job.Spec.Template.Spec.Containers) != 1 {
		t.Fatal("the judge has another number of containers than one")
	}
	judge := job.Spec.Template.Spec.Containers[0]
	if got := envFrom(t, m, judge.EnvFrom); got["TMINUS_RUN"] != config["TMINUS_RUN"] || got["TMINUS_KAFKA"] != config["TMINUS_KAFKA"] || got["TMINUS_CLICKHOUSE"] == "" {
		t.Error("the judge looks elsewhere than the pods write")
	}
	if at := slices.Index(judge.Command, "--pods"); at < 0 || at+1 == len(judge.Command) || judge.Command[at+1] != pods {
		t.Errorf("the judge waits for another number of pods than %s: %v", pods, judge.Command)
	}
	if p := job.Spec.Template.Spec.RestartPolicy; p != corev1.RestartPolicyNever || job.Spec.BackoffLimit == nil || *job.Spec.BackoffLimit != 0 {
		t.Error("the judge would be run again after a NO-GO")
	}
	mounts(job.Spec.Template.Spec.Volumes, judge.VolumeMounts, bad)
	for _, v := range job.Spec.Template.Spec.Volumes {
		if c := v.ConfigMap; c != nil && m.configs[c.Name] == nil {
			t.Errorf("volume %s: no config map %s", v.Name, c.Name)
		}
		if c := v.PersistentVolumeClaim; c != nil && m.claims[c.ClaimName] == nil {
			t.Errorf("volume %s: no claim %s", v.Name, c.ClaimName)
		}
	}
	if judge.Image != run.Spec.Runner.Image {
		t.Errorf("the judge's image is %s and the pods' %s", judge.Image, run.Spec.Runner.Image)
	}

	// Hosts of the addresses are services of the namespace.
	for _, address := range []string{config["TMINUS_KAFKA"], strings.TrimPrefix(config["TMINUS_CLICKHOUSE"], "clickhouse://")} {
		host, _, _ := strings.Cut(address, ":")
		if s := m.services[host]; s == nil || s.Spec.Type == corev1.ServiceTypeExternalName && s.Spec.ExternalName == "" {
			t.Errorf("%s is at no service of the namespace", address)
		}
	}

	// A generator that is throttled or evicted sends late: guaranteed resources, and nobody is root.
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := run.Spec.Runner.Resources.Requests[name], run.Spec.Runner.Resources.Limits[name]
		if request.IsZero() || request.Cmp(limit) != 0 {
			t.Errorf("pods request %s of %s and are limited to %s", request.String(), name, limit.String())
		}
	}
	for who, c := range map[string]*corev1.PodSecurityContext{"pods": run.Spec.Runner.SecurityContext, "judge": job.Spec.Template.Spec.SecurityContext} {
		if c == nil || c.RunAsNonRoot == nil || !*c.RunAsNonRoot {
			t.Errorf("the %s may be root", who)
		}
	}
}

// envFrom is the environment that config maps give a pod.
func envFrom(t *testing.T, m *manifests, from []corev1.EnvFromSource) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, f := range from {
		switch {
		case f.ConfigMapRef != nil && m.configs[f.ConfigMapRef.Name] != nil:
			for k, v := range m.configs[f.ConfigMapRef.Name].Data {
				env[k] = v
			}
		case f.SecretRef != nil && f.SecretRef.Optional != nil && *f.SecretRef.Optional:
		default:
			t.Errorf("an environment from nowhere: %+v", f)
		}
	}
	return env
}

// What is wrong with a manifest is found: a check that finds nothing proves nothing.
func TestMistakesAreFound(t *testing.T) {
	whole, err := os.ReadFile("testrun.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, swap := range [][2]string{
		{"parallelism: 4", "paralellism: 4"},
		{"parallelism: 4", "parallelism: 0"},
		{"parallelism: 4", "parallelism: four"},
		{"image:", "images:"},
		{"cpu: \"2\"", "cpu: two"},
		{"name: spool\n        mountPath", "name: pool\n        mountPath"},
		{"file: distributed.js", "path: distributed.js"},
	} {
		text := strings.Replace(string(whole), swap[0], swap[1], 1)
		if text == string(whole) {
			t.Fatalf("%q is not in testrun.yaml", swap[0])
		}
		var r testRun
		if err := yaml.UnmarshalStrict([]byte(text), &r); err == nil && r.check() == nil {
			t.Errorf("%s passes", swap[1])
		}
	}
}

// The image is built from what the repository has.
func TestDockerfile(t *testing.T) {
	b, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	stages := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "FROM":
			if !strings.Contains(f[1], ":") || strings.HasSuffix(f[1], ":latest") {
				t.Errorf("%s is not pinned", f[1])
			}
			if len(f) == 4 {
				stages[f[3]] = true
			}
		case "COPY":
			if from, ok := strings.CutPrefix(f[1], "--from="); ok && !stages[from] {
				t.Errorf("no stage %s", from)
			}
		case "#", "RUN", "WORKDIR", "USER", "ENTRYPOINT":
		default:
			t.Errorf("instruction %s: check it, and add it here", f[0])
		}
	}
	makefile, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"build", "k6"} {
		if !regexp.MustCompile(`(?m)^` + target + `:`).Match(makefile) {
			t.Errorf("the Makefile has no %s", target)
		}
	}
}
