# tminus: every set-up step is done by these targets, says what it does, and is done once: downloads go to one folder
# that every clone shares.
SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help

SCENARIO ?= first-light
BIN := bin/tminus

.PHONY: help rehearse up build test test-short bench lint fuzz clips golden clean setup \
	k6 k6-test k6-mod lint-deploy setup-k6 setup-go setup-clickhouse setup-kafka setup-ffmpeg setup-chromium setup-nginx setup-players setup-peers bench-play-starts

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

rehearse: setup-clickhouse build ## rehearse SCENARIO (first-light) and leave a report in runs/
	@$(BIN) rehearse $(SCENARIO)

up: setup-clickhouse build ## run the reference pipeline until Ctrl-C and print its URLs
	@$(BIN) up

build: setup-go ## build bin/tminus
	@go build -trimpath -o $(BIN) ./cmd/tminus

test: setup lint ## set up and run every test, races detected
	@mkdir -p runs
	@echo "tminus: running every test"
	@# Compiled on every core, then run one package at a time: players and rehearsals measure time, and have the machine to
	@# themselves.
	@go test -race -run '^$$' ./... >/dev/null
	@TMINUS_REQUIRE_REAL_KAFKA=1 go test -race -p 1 -timeout 15m $$(go list ./... | grep -v -e /scenarios/e2e -e /scenarios/catalogue)
	@# The whole catalogue breaks real processes and measures them: the race detector would slow both down many times over.
	@go test -timeout 30m ./scenarios/catalogue
	@go test -race -p 1 -timeout 25m ./scenarios/e2e/...
	@$(MAKE) --no-print-directory k6-test

test-short: setup-go ## the tests that need nothing installed
	@go test -short ./...

bench: setup-go setup-clickhouse ## run the benchmarks
	@go test -run '^$$' -bench . -benchmem ./...

bench-play-starts: setup-peers build ## measure play starts against bare system calls, vegeta and k6
	@$(BIN) bench play-starts

lint: setup-go ## vet, gofmt, staticcheck
	@echo "tminus: checking formatting, vet and staticcheck"
	@out=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$out" ]; then echo "tminus: these files are not formatted, run gofmt -w on them: $$out" >&2; exit 1; fi
	@go vet ./...
	@go tool staticcheck ./...

FUZZTIME ?= 10s
fuzz: setup-go ## run every fuzz target for FUZZTIME (10s) each
	@for pkg in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "tminus: fuzzing $$f in $$pkg for $(FUZZTIME)"; \
			go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

k6: setup-go ## build bin/k6: k6 with the extension k6/x/tminus
	@simulator/k6/build.sh bin/k6

k6-test: build setup-clickhouse k6 lint-deploy ## test the k6 extension, and bin/k6 against a pipeline of its own
	@echo "tminus: testing the k6 extension"
	@simulator/k6/go.sh vet ./... && simulator/k6/go.sh staticcheck ./... && simulator/k6/go.sh test -race -timeout 10m ./...
	@echo "tminus: testing bin/k6 end to end"
	@TMINUS_K6=$(CURDIR)/bin/k6 TMINUS_BIN=$(CURDIR)/$(BIN) simulator/k6/go.sh test -run TestEndToEnd -count 1 -timeout 10m .

k6-mod: setup-go ## bring the k6 extension's go.mod up to the main one's
	@cd simulator/k6 && GOWORK=off GOFLAGS=-mod=mod go vet ./...

lint-deploy: setup-go ## check the Kubernetes manifests against their schemas
	@echo "tminus: checking the Kubernetes manifests"
	@cd simulator/k6/deploy && GOWORK=off go vet ./... && GOWORK=off go test ./...

clips: setup-ffmpeg ## make the encoder's clips anew (they are committed)
	@scenarios/e2e/apt.sh espeak-ng espeak-ng
	@scenarios/e2e/apt.sh fonts-dejavu-core /usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf
	@reference/encoder/clips/make.sh

golden: setup-go ## rewrite the golden files from what the code now says
	@go test $$(grep -rl --include=*_test.go '"update"' . | xargs -n1 dirname | sort -u) -update

clean: ## remove what was built and every run
	@rm -rf bin runs

setup: setup-go setup-clickhouse setup-kafka setup-ffmpeg setup-chromium setup-nginx setup-players ## install all that build and tests need

setup-go:
	@command -v go >/dev/null || { echo "tminus: Go is missing: install Go 1.26 or later (https://go.dev/dl), then run make again" >&2; exit 1; }

setup-clickhouse: ## fetch the embedded ClickHouse engine
	@telemetry/clickhouse/install.sh >/dev/null

setup-kafka: ## fetch a real Apache Kafka for the tests
	@telemetry/kafka/install.sh >/dev/null

setup-k6: ## build xk6, which builds k6 with extensions
	@simulator/k6/install.sh >/dev/null

setup-ffmpeg:
	@scenarios/e2e/apt.sh ffmpeg ffmpeg ffprobe

setup-nginx:
	@scenarios/e2e/apt.sh nginx-light nginx

setup-chromium:
	@scenarios/e2e/apt.sh chromium chromium

setup-players: ## fetch the three browser players for the tests
	@scenarios/e2e/players/install.sh

setup-peers: setup-go ## build vegeta and k6 for bench-play-starts (once; k6 takes minutes)
	@scenarios/bench/peers/install.sh >/dev/null
