// Package kafkatest gives tests a real Apache Kafka: one KRaft node, started and stopped by the test.
package kafkatest
