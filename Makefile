SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

# `make setup` once, then any target. Everything a target needs it installs, or says what is missing.
PYTHON ?= python3
BIN := .venv/bin
export PICTURES ?=

# $(call pinned,bench) installs what requirements-bench.txt pins, once. $(call debian,program:package …) installs the packages
# of Debian's whose programs are missing, or names them and fails where this is not root.
pinned = @[ .venv/$(1) -nt requirements-$(1).txt ] || { echo "Installing what requirements-$(1).txt pins"; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --require-hashes -r requirements-$(1).txt; \
	touch .venv/$(1); }
debian = @missing=; for each in $(1); do command -v $${each%:*} >/dev/null || missing+=" $${each\#*:}"; done; \
	if [ "$$missing" ]; then \
		[ "$$(id -u)" = 0 ] || { echo "These packages of Debian's are missing:$$missing"; exit 1; }; \
		echo "Installing Debian's$$missing"; \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends $$missing >/dev/null; fi

run run-tls: export PRESENCE_ENV ?= development

.PHONY: setup run run-tls demo seed-users \
	lint test docs lock audit screenshots \
	test-example test-ha test-redis test-clients test-admin test-deploy test-pgbouncer chaos fuzz slow-clients \
	bench-scale bench-commands bench bench-clock bench-writers bench-admin profile soak

setup: .venv/installed

.venv/installed: requirements.txt requirements-dev.txt
	@test -x $(BIN)/python || { echo "Making .venv"; $(PYTHON) -m venv .venv; }
	@echo "Installing what requirements-dev.txt pins (a minute at most)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar=off --require-hashes -r requirements-dev.txt \
		| { grep --line-buffered -E '^(Downloading|Installing|Successfully)' || true; }
	@$(BIN)/python -m pip check
	@touch $@

run: setup
	$(BIN)/alembic upgrade head
	exec $(BIN)/gunicorn -c gunicorn.conf.py wsgi:app

run-tls: export PORT ?= 8443
run-tls: export INSTANCE_PATH ?= instance
run-tls: export TLS_CERTFILE = $(INSTANCE_PATH)/localhost.pem
run-tls: export TLS_KEYFILE = $(INSTANCE_PATH)/localhost-key.pem
run-tls: setup
	$(BIN)/python -m app.emulator.certificate $(INSTANCE_PATH)
	$(BIN)/alembic upgrade head
	exec $(BIN)/gunicorn -c gunicorn.conf.py wsgi:app

demo: setup
	PYTHONPATH=pytest-graph-presence/src $(BIN)/python demo/contact_centre.py

seed-users: setup  # N=1000000; the database of DATABASE_URL, which must be empty; SEED="--tenant …" for another tenant
	$(BIN)/alembic upgrade head
	$(BIN)/python -m bench.seed $(or $(N),$(error make seed-users N=1000000 says how many)) $(SEED)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under 95

docs: setup  # prints into docs/ what comes out of the code; the tests compare
	$(BIN)/python -m tests.docs.pages

lock: setup
	for list in requirements requirements-otel requirements-dev requirements-clients requirements-bench requirements-browser requirements-audit; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
			--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
			--output-file $$list.txt $$list.in; done
	cd tests/clients/js && npm install --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund

audit: setup  # offline it lists the licences and says that nothing was compared
	@test -x instance/audit/bin/pip-audit || { echo "Installing what requirements-audit.txt pins"; \
		$(PYTHON) -m venv instance/audit; \
		instance/audit/bin/pip install -qq --disable-pip-version-check --require-hashes -r requirements-audit.txt; }
	@instance/audit/bin/pip-licenses --python $(BIN)/python --order license
	@rm -f instance/audit/report
	@instance/audit/bin/pip-audit --requirement requirements.txt --strict --disable-pip --require-hashes --timeout 10 \
		--progress-spinner off --output instance/audit/report \
		|| { test ! -s instance/audit/report || { cat instance/audit/report; exit 1; }; \
		echo "The advisories cannot be had: NOTHING WAS COMPARED"; }

screenshots:  # of the admin site, for the README
	$(MAKE) test-admin PICTURES=docs/img

test-example: setup
	$(PYTHON) -m venv --clear instance/example
	@echo "Installing the plugin and the example's own needs, and nothing else"
	instance/example/bin/pip install --quiet --disable-pip-version-check -r examples/pbx_connector/requirements.txt ./pytest-graph-presence
	cd examples/pbx_connector && ../../instance/example/bin/pytest -p no:cacheprovider

test-ha: setup  # two and a half minutes; needs Linux, and root or Debian's packages patroni, etcd-server, postgresql
	@PYTHONPATH=. $(BIN)/python tests/ha/drill.py

test-redis: setup  # needs Linux, and root or Debian's package redis-server
	$(call debian,redis-server:redis-server)
	$(BIN)/pytest --override-ini addopts="-p no:cacheprovider" -q tests/redis

test-clients: setup  # a minute; needs node, npm and Chromium: as root it installs Debian's
	$(call debian,node:nodejs npm:npm chromium:chromium)
	$(call pinned,clients)
	@cd tests/clients/js && { [ node_modules/installed -nt package-lock.json ] || { \
		echo "Installing what tests/clients/js/package-lock.json pins"; npm ci --no-audit --no-fund --loglevel error; \
		touch node_modules/installed; }; }
	$(BIN)/pytest --override-ini addopts="-ra --strict-markers --strict-config -p no:cacheprovider" -v tests/clients

test-admin: setup  # a minute; needs Chromium: as root it installs Debian's. PICTURES=folder keeps a picture of each page
	$(call debian,chromium:chromium chromium:fonts-dejavu-core)
	$(call pinned,browser)
	$(BIN)/pytest --override-ini addopts="-ra --strict-markers --strict-config -p no:cacheprovider" -v tests/browser

test-deploy: export PATH := $(CURDIR)/instance/deploy/usr/sbin:$(CURDIR)/instance/deploy/usr/bin:$(PATH)
test-deploy: setup  # one to three minutes; needs root on Debian with Linux 6.3 or later: it runs the service as another user
	@test "$$(id -u)" = 0 || { echo "make test-deploy needs root"; exit 1; }
	@mkdir -p instance/deploy; for pair in nginx:nginx promtool:prometheus sqlite3:sqlite3; do \
		command -v $${pair%:*} >/dev/null || { echo "Unpacking Debian's $${pair#*:}, which is neither installed nor started"; \
			apt-get -qq update; (cd instance/deploy && apt-get -qq download $${pair#*:} && dpkg -x $${pair#*:}_*.deb .); }; done
	$(call debian,systemd-analyze:systemd docker-compose:docker-compose unshare:util-linux)
	$(BIN)/pytest --override-ini addopts="-p no:cacheprovider" -v tests/deploy

test-pgbouncer: setup  # needs Linux, and root or Debian's package pgbouncer
	$(call debian,pgbouncer:pgbouncer)
	$(BIN)/pytest --override-ini addopts="-p no:cacheprovider" -q tests/pgbouncer

chaos: setup  # CHAOS="--engine sqlite --only disk" for a part of it
	@$(BIN)/python -m tests.chaos $(CHAOS)

fuzz: setup  # two minutes; FUZZ="--engine sqlite --seconds 600" for more of it
	@$(BIN)/python -m tests.fuzz $(FUZZ)

slow-clients: setup  # SLOW="--slow 400 --seconds 20" for more of it
	@$(BIN)/python -m tests.chaos.slow_clients $(SLOW)

bench-scale: setup  # SCALE="--sizes 10000,1000000,10000000": 1 GB of disk and two minutes for each million and engine
	$(call pinned,bench)
	@PYTHONPATH=. $(BIN)/python bench/scale.py $(SCALE)

bench-commands: setup  # COMMANDS="--sizes 10000,1000000": 2 GB of disk and some minutes
	@PYTHONPATH=. $(BIN)/python bench/commands.py $(COMMANDS)

bench: setup  # BENCH="--connections 1,16,128 --durability durable,relaxed" for all of it
	$(call pinned,bench)
	@PYTHONPATH=. $(BIN)/python bench/run.py $(BENCH)

bench-clock: setup
	@PYTHONPATH=. $(BIN)/python bench/clock.py

bench-writers: setup  # WRITERS="--writers 64 --seconds 10"
	@PYTHONPATH=. $(BIN)/python bench/writers.py $(WRITERS)

bench-admin: setup  # the database of DATABASE_URL, which make seed-users fills; BENCH="--times 20"
	@PYTHONPATH=. $(BIN)/python bench/admin.py $(BENCH)

profile: setup  # PROFILE="--engine sqlite --cases read"; py-spy may need root
	$(call pinned,bench)
	@PYTHONPATH=. $(BIN)/python bench/profiling.py $(PROFILE)

soak: setup  # a quarter of an hour; SOAK="--engine sqlite --requests 100000"
	$(call pinned,bench)
	@PYTHONPATH=. $(BIN)/python bench/soak.py $(SOAK)
