package kafkatest

import "syscall"

// dieWithParent keeps Kafka from outliving a test that is killed.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
