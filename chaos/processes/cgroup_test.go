package processes

import (
	"os"
	"strings"
	"testing"
)

const (
	mountsV2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	mountsV1 = "31 30 0:27 / /sys/fs/cgroup/cpu\\040acct rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n" +
		"32 30 0:28 / /sys/fs/cgroup/memory rw shared:6 - cgroup cgroup rw,memory\n" +
		"33 30 0:29 / /sys/fs/cgroup/unified rw shared:7 - cgroup2 cgroup2 rw\n"
	mountsDocker = "31 30 0:27 /docker/ab /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
)

func TestLocate(t *testing.T) {
	for _, c := range []struct {
		name, mounts, groups string
		files                map[string]string
		want                 site
		lacking              string
	}{
		{"version 2, a service", mountsV2, "0::/system.slice/nginx.service\n",
			map[string]string{"/sys/fs/cgroup/system.slice/nginx.service/cgroup.controllers": "cpu io memory pids\n"},
			site{version: 2, home: "/sys/fs/cgroup/system.slice/nginx.service", parent: "/sys/fs/cgroup/system.slice"}, ""},
		{"version 2, at the root, passed on", mountsV2, "0::/\n",
			map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpu memory\n", "/sys/fs/cgroup/cgroup.subtree_control": "cpu\n"},
			site{version: 2, home: "/sys/fs/cgroup", parent: "/sys/fs/cgroup"}, ""},
		{"version 2, at the root, not passed on", mountsV2, "0::/\n",
			map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpu memory\n", "/sys/fs/cgroup/cgroup.subtree_control": "memory\n"},
			site{version: 2, home: "/sys/fs/cgroup", parent: "/sys/fs/cgroup", enable: "/sys/fs/cgroup/cgroup.subtree_control"}, ""},
		{"version 2, the root of a container", mountsV2, "0::/\n",
			map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpu\n", "/sys/fs/cgroup/cgroup.type": "domain\n"}, site{}, "no place beside it"},
		{"version 2 without the controller", mountsV2, "0::/user.slice\n",
			map[string]string{"/sys/fs/cgroup/user.slice/cgroup.controllers": "memory pids\n"}, site{}, `no controller "cpu"`},
		{"version 1, where version 2 has it not", mountsV1, "4:cpu,cpuacct:/jobs/1\n5:memory:/\n0::/\n",
			map[string]string{"/sys/fs/cgroup/unified/cgroup.controllers": "hugetlb\n"},
			site{version: 1, home: "/sys/fs/cgroup/cpu acct/jobs/1", parent: "/sys/fs/cgroup/cpu acct/jobs/1"}, ""},
		{"version 1, in a container", mountsDocker, "4:cpu:/docker/ab/x\n", nil,
			site{version: 1, home: "/sys/fs/cgroup/cpu/x", parent: "/sys/fs/cgroup/cpu/x"}, ""},
		{"outside of what is mounted", mountsDocker, "4:cpu:/docker/abc\n", nil, site{}, "not mounted here"},
		{"above what is mounted", mountsV2, "0::/../x\n", nil, site{}, "not mounted here"},
		{"nothing is mounted", "21 1 0:20 / /proc rw - proc proc rw\n", "0::/\n", nil, site{}, "no control groups are mounted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := locate("cpu", parseMounts(c.mounts), parseGroups(c.groups), func(path string) (string, error) {
				if text, ok := c.files[path]; ok {
					return text, nil
				}
				return "", os.ErrNotExist
			})
			if got != c.want || (err == nil) != (c.lacking == "") || err != nil && !strings.Contains(err.Error(), c.lacking) {
				t.Errorf("%+v, %v; want %+v, %q", got, err, c.want, c.lacking)
			}
		})
	}
}

func TestLimitsOfEitherVersion(t *testing.T) {
	show := func(list []setting) string {
		var parts []string
		for _, s := range list {
			parts = append(parts, s.file+"="+s.value)
		}
		return strings.Join(parts, " ")
	}
	for _, c := range []struct{ got, want string }{
		{show(quota(site{version: 2}, 0.25)), "cpu.max=25000 100000"},
		{show(quota(site{version: 1}, 1.5)), "cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000"},
		{show(limit(site{version: 2}, 8<<20)), "memory.high=8388608"},
		{show(limit(site{version: 1}, 8<<20+1)), "memory.limit_in_bytes=8388608 memory.oom_control=1"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
}

func TestWord(t *testing.T) {
	for in, want := range map[string]string{"": "run", "../../etc": "etc", "2026-11-22T07.3/x y": "2026-11-22T073xy", strings.Repeat("x", 99): strings.Repeat("x", 64)} {
		if got := word(in); got != want {
			t.Errorf("word(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzMounts(f *testing.F) {
	f.Add(mountsV1, "4:cpu,cpuacct:/jobs/1\n0::/\n")
	f.Add(mountsV2, "0::/../x")
	f.Fuzz(func(t *testing.T, mounts, groups string) {
		s, err := locate("cpu", parseMounts(mounts), parseGroups(groups), func(string) (string, error) { return "cpu", nil })
		if err == nil && (s.home == "" || s.parent == "") {
			t.Fatalf("%+v", s)
		}
	})
}
