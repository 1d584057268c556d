package deploy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// testRun is what is used here of the k6 operator's TestRun (k6.io/v1alpha1), written from its documentation of the resource. What a
// manifest says beyond it is refused: add the field here first, with a look at that documentation.
type testRun struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Parallelism int32  `json:"parallelism"`
		Separate    bool   `json:"separate,omitempty"`
		Arguments   string `json:"arguments,omitempty"`
		Cleanup     string `json:"cleanup,omitempty"`
		Quiet       string `json:"quiet,omitempty"`
		Script      struct {
			ConfigMap *struct {
				Name string `json:"name"`
				File string `json:"file"`
			} `json:"configMap,omitempty"`
			LocalFile string `json:"localFile,omitempty"`
		} `json:"script"`
		Runner      testRunPod  `json:"runner"`
		Initializer *testRunPod `json:"initializer,omitempty"`
		Starter     *testRunPod `json:"starter,omitempty"`
	} `json:"spec"`
}

type testRunPod struct {
	Image                    string                        `json:"image,omitempty"`
	ImagePullPolicy          corev1.PullPolicy             `json:"imagePullPolicy,omitempty"`
	ImagePullSecrets         []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	Env                      []corev1.EnvVar               `json:"env,omitempty"`
	EnvFrom                  []corev1.EnvFromSource        `json:"envFrom,omitempty"`
	Resources                corev1.ResourceRequirements   `json:"resources,omitempty"`
	SecurityContext          *corev1.PodSecurityContext    `json:"securityContext,omitempty"`
	ContainerSecurityContext *corev1.SecurityContext       `json:"containerSecurityContext,omitempty"`
	Volumes                  []corev1.Volume               `json:"volumes,omitempty"`
	VolumeMounts             []corev1.VolumeMount          `json:"volumeMounts,omitempty"`
	NodeSelector             map[string]string             `json:"nodeSelector,omitempty"`
	Tolerations              []corev1.Toleration           `json:"tolerations,omitempty"`
	ServiceAccountName       string                        `json:"serviceAccountName,omitempty"`
}

// check says what the resource's own rules find wrong.
func (r *testRun) check() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("TestRun "+r.Name+": "+format, a...)) }
	s := r.Spec
	if s.Parallelism < 1 {
		bad("parallelism %d", s.Parallelism)
	}
	if (s.Script.ConfigMap == nil) == (s.Script.LocalFile == "") {
		bad("want the script in a config map or in the image, one of them")
	}
	if !slices.Contains([]string{"", "post"}, s.Cleanup) {
		bad("cleanup %q", s.Cleanup)
	}
	if !slices.Contains([]string{"", "true", "false"}, s.Quiet) {
		bad("quiet %q", s.Quiet)
	}
	mounts(s.Runner.Volumes, s.Runner.VolumeMounts, bad)
	return errors.Join(errs...)
}

func mounts(volumes []corev1.Volume, mounts []corev1.VolumeMount, bad func(string, ...any)) {
	for _, m := range mounts {
		if !slices.ContainsFunc(volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
			bad("mounts a volume %q that is not there", m.Name)
		}
	}
}

// dnsName is what Kubernetes lets an object be called (RFC 1123 labels, joined by dots).
var dnsName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
