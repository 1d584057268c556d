package kafkatest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/kafka"
)

// Version that install.sh puts into the cache folder.
const Version = "4.1.1"

// libs finds the jars: $TMINUS_KAFKA_HOME, or the shared cache folder.
func libs() (string, error) {
	home := os.Getenv("TMINUS_KAFKA_HOME")
	if home == "" {
		cache := os.Getenv("XDG_CACHE_HOME")
		if cache == "" {
			user, err := os.UserHomeDir()
			if err != nil {
				return "", err
			}
			cache = filepath.Join(user, ".cache")
		}
		home = filepath.Join(cache, "tminus", "kafka", Version)
	}
	jars, err := filepath.Glob(filepath.Join(home, "libs", "kafka_*.jar"))
	if err != nil || len(jars) == 0 {
		return "", fmt.Errorf("no Apache Kafka is installed in %s: run `make setup`", home)
	}
	if _, err := exec.LookPath("java"); err != nil {
		return "", fmt.Errorf("java is not installed: install a Java runtime, 17 or later")
	}
	return filepath.Join(home, "libs", "*"), nil
}

// Start runs Apache Kafka until the test ends and returns its address. Where it is not installed the test is skipped,
// or fails where CI or TMINUS_REQUIRE_REAL_KAFKA is set.
func Start(t testing.TB) (address string) {
	t.Helper()
	classpath, err := libs()
	if err != nil {
		if os.Getenv("CI") != "" || os.Getenv("TMINUS_REQUIRE_REAL_KAFKA") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED, NOT TESTED AGAINST A REAL KAFKA: ", err)
	}
	for try := 1; ; try++ {
		address, err := start(t, classpath)
		if err == nil {
			return address
		}
		if try == 3 { // a free port may be taken before Kafka binds it
			t.Fatal(err)
		}
		t.Log(err)
	}
}

func start(t testing.TB, classpath string) (address string, err error) {
	dir := t.TempDir()
	ports, err := freePorts(2)
	if err != nil {
		return "", err
	}
	address = fmt.Sprintf("127.0.0.1:%d", ports[0])
	properties := filepath.Join(dir, "server.properties")
	err = os.WriteFile(properties, fmt.Appendf(nil, `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[1]d
listeners=PLAINTEXT://%[2]s,CONTROLLER://127.0.0.1:%[1]d
advertised.listeners=PLAINTEXT://%[2]s
controller.listener.names=CONTROLLER
log.dirs=%[3]s
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=2
`, ports[1], address, filepath.Join(dir, "data")), 0o644)
	if err != nil {
		return "", err
	}
	java := func(args ...string) *exec.Cmd {
		return exec.Command("java", append([]string{"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classpath}, args...)...)
	}
	if out, err := java("kafka.tools.StorageTool", "format", "-t", "dG1pbnVzLXRlc3QtMDAwMQ", "-c", properties).CombinedOutput(); err != nil {
		return "", fmt.Errorf("formatting Kafka's storage: %w\n%s", err, out)
	}
	var log bytes.Buffer
	cmd := java("kafka.Kafka", properties)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
	}
	client, err := kafka.New(kafka.Config{Address: address})
	if err != nil {
		stop()
		return "", err
	}
	defer client.Close()
	deadline := time.After(90 * time.Second)
	for {
		if client.Check(t.Context()) == nil {
			t.Cleanup(stop)
			return address, nil
		}
		select {
		case err := <-ended:
			return "", fmt.Errorf("the broker ended: %w\n%s", err, log.Bytes())
		case <-deadline:
			stop()
			return "", fmt.Errorf("the broker did not answer within 90 s\n%s", log.Bytes())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
