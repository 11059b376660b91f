# Penstock. `make run` shows the engine working, `make test` proves it; `make help` lists the rest.
#
# One make, no recursion over directories: sources are found by wildcard, each layer becomes a
# static library, and programs link the layers they may use, in the order of the layers. All that
# is built lies under build/. Nothing needs `make clean` first: flags and file lists are remembered.

BUILD   ?= build#      where everything is built
SAN     ?=#            address,undefined or thread: a separate build with these sanitizers
V       ?=#            V=1 prints the commands
GROUPS  ?=#            the test groups that `make test` runs; all when empty
MINUTES ?= 10#         how long `make crash` and `make soak` run, and `make fuzz` in all
PREFIX  ?= /usr/local
CLANG        ?= clang-14
CLANG_FORMAT ?= clang-format-14# pinned: another version formats differently

comma := ,
B     := $(BUILD)$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
X86   := $(filter x86_64%,$(shell $(CC) -dumpmachine 2>/dev/null))
Q     := $(if $(V),,@)
say    = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))
again  = $(MAKE) --no-print-directory $(if $(V),,-s)
MAKEFLAGS += --no-builtin-rules $(if $(filter 0,$(MAKELEVEL)),-j$(shell nproc))

# --- flags ----------------------------------------------------------------------------------------
pkg_one = $(firstword $(foreach p,$(1),$(shell pkg-config --exists $(p) 2>/dev/null && echo $(p))))
PKG_base      := libzmq libmicrohttpd jansson libpcre2-8 libutf8proc libsodium
PKG_schemas   := $(or $(call pkg_one,msgpack-c msgpackc msgpack),msgpack)# its name differs
PKG_store     := lmdb
PKG_pipelines := libcyaml
PKG_workers   := libturbojpeg spng libcurl
PKG_extract   := poppler-glib libseccomp
PKG_all       := $(PKG_base) $(PKG_schemas) $(PKG_store) $(PKG_pipelines) $(PKG_workers)
PKG_CFLAGS    := $(shell pkg-config --cflags $(PKG_all) 2>/dev/null || echo missing)
libs           = $(shell pkg-config --libs $(1)) -lm

CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Wconversion -Wshadow -Werror=implicit-function-declaration
WARN     += $(if $(filter true,$(CI)),-Werror)
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all)
FLAGS     = -std=c11 -D_GNU_SOURCE -I. $(filter-out missing,$(PKG_CFLAGS)) $(CFLAGS) $(WARN) \
            -ffp-contract=off -fno-omit-frame-pointer -pthread $(SANFLAGS)
LINK      = $(CC) $(LDFLAGS) -pthread -Wl,--as-needed $(SANFLAGS)

# --- sources, libraries, programs -----------------------------------------------------------------
# The C files of some directories; those for one instruction set only where the target has it.
c_files = $(filter-out $(if $(X86),,%_avx2.c %_avx512.c),$(sort $(wildcard $(1:%=%/*.c))))
objects = $(patsubst %.c,$(B)/obj/%.o,$(1))
archive = $(patsubst %,$(B)/lib/libps-%.a,$(1))

LAYERS := base schemas store pipelines kernels client cli broker workers extract
SRC_base      := $(call c_files,base)
SRC_schemas   := $(call c_files,schemas)
SRC_store     := $(call c_files,store)
SRC_pipelines := $(call c_files,pipelines)
SRC_kernels   := $(call c_files,kernels kernels/ref kernels/cpu)
SRC_client    := $(call c_files,client)
SRC_cli       := $(call c_files,client/cli)
SRC_broker    := $(call c_files,broker)
SRC_workers   := $(call c_files,workers $(addprefix workers/,encode chat infer post schema train))
SRC_extract   := $(call c_files,workers/extract)# the helper: GPL, because of Poppler

# A program is its main file and its layers from top to bottom, which is also the order to link in.
MAIN_penstock-broker := broker/main.c
USES_penstock-broker := broker pipelines store schemas base
MAIN_penstock-worker := workers/main.c
USES_penstock-worker := workers kernels pipelines store schemas base
MAIN_penstock        := client/cli/main.c
USES_penstock        := cli client pipelines schemas base
MAIN_penstock-extract := workers/extract/main.c
USES_penstock-extract := extract base
USES_test            := extract workers broker cli client kernels pipelines store schemas base
MAINS     := $(wildcard broker/main.c workers/main.c workers/extract/main.c client/cli/main.c)
PROGRAMS  := $(foreach p,$(addprefix penstock,-broker -worker -extract) penstock,\
               $(if $(wildcard $(MAIN_$(p))),$(p)))

SRC_tests := $(sort $(wildcard tests/*/*.c tests/bench/*/*.c))
SRC_all   := $(foreach l,$(LAYERS),$(SRC_$(l)))
TESTS     := $(filter-out bench faults fuzz,$(sort $(patsubst tests/%/,%,$(dir $(wildcard tests/*/*.c)))))
BENCHES   := $(patsubst tests/bench/%.c,%,$(sort $(wildcard tests/bench/*.c)))
FAULTS    := $(if $(wildcard tests/faults),$(addprefix $(B)/faults/,record.so countdown.so replay \
               early-ack/penstock-broker))
WITH_sessions := $(filter-out %/test_sim.c,$(wildcard tests/sim/*.c))# a world for its broker
LINK_sim := -Wl,--wrap=ready_serve# whose turn it was is asked when a job is chosen, not when its lease leaves
LINK_sessions := $(LINK_sim)
LINK_broker := $(shell pkg-config --libs librabbitmq 2>/dev/null)# a peer of its benchmark, where it is installed
FUZZERS   := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c))
SHARE     := $(addprefix $(B)/share/penstock/,pipelines $(if $(wildcard client/python),python) $(if $(wildcard examples),examples recipes))
LIBRARIES := $(call archive,$(LAYERS)) $(if $(SRC_client),$(addprefix $(B)/lib/libpenstock,.a .so))

# --- targets --------------------------------------------------------------------------------------
.DEFAULT_GOAL := all
.PHONY: help all setup run test test-programs sim crash powerloss countdown soak parity lint everything layers format fuzz fuzz-programs \
        install clean
.DELETE_ON_ERROR:
.SECONDARY:

help: ## list the targets
	@sed -n 's/^\([a-z%-]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 16
	@echo '  variables: SAN=address,undefined|thread GROUPS="unit wire" PENSTOCK_DATA=DIR CASES=N' \
	  'MINUTES=N CC= V=1 BUILD= PREFIX= DESTDIR='

all: $(PROGRAMS:%=$(B)/bin/%) $(LIBRARIES) $(SHARE) $(B)/compile_commands.json ## build everything

setup: ## install the Debian or Ubuntu packages that are missing
	@ops/setup

run: ## set up, build, fetch the model once, and run six jobs end to end
	@ops/setup
	@+$(again) all
	@PENSTOCK_BIN=$(abspath $(B)/bin) ops/run

test: ## set up, build, run the tests; the last line is `N passed, N failed, N skipped`
	@ops/setup test
	@ops/models >/dev/null || [ $$? -eq 4 ]
	@+$(again) all test-programs
	@SAN=$(SAN) tests/run $(B) $(GROUPS)

test-programs: $(TESTS:%=$(B)/test/%) $(FAULTS)

sim: $(B)/test/sim ## simulate the broker long: JOBS=N (1000000), SEED=N, or WORLD=N to see one again
	@bash -o pipefail -c 'JOBS=$(or $(JOBS),1000000) $< 2>&1 | grep -v Synthesis'

crash: all ## kill -9 of broker, workers, helpers, supervisor under load: MINUTES=N (10), SEED=N
	@PENSTOCK_BIN=$(abspath $(B)/bin) tests/endure/endure.py crash --minutes $(MINUTES) \
	  $(if $(SEED),--seed $(SEED))

powerloss: all $(FAULTS) ## lose power at CUTS=N (2000) places of a recorded run; SEED=N
	@PENSTOCK_BIN=$(abspath $(B)/bin) tests/powerloss/powerloss.py --cuts $(or $(CUTS),2000) \
	  $(if $(SEED),--seed $(SEED))

countdown: all $(FAULTS) ## the N-th write, flush, allocation, send fails: CASES=N of each (100); SEED=N
	@PENSTOCK_BIN=$(abspath $(B)/bin) tests/countdown/countdown.py --cases $(or $(CASES),100) \
	  $(if $(SEED),--seed $(SEED))

soak: all ## 70 % load without kills: memory and files stay flat; MINUTES=N (10)
	@PENSTOCK_BIN=$(abspath $(B)/bin) tests/endure/endure.py soak --minutes $(MINUTES)

bench-%: $(B)/bench/% all ## run one benchmark of tests/bench: a table, and build/bench/NAME.json
	$(Q)PENSTOCK_BIN=$(abspath $(B)/bin) PENSTOCK_COMMIT=$$(git describe --always --dirty) $< $(ARGS)

parity: $(B)/bench/parity ## models against their reference's numbers: a table, and build/bench/parity.json
	@$<

lint: layers ## check format, layers, Python, manual pages, and that neither gcc nor clang has a warning
	@ops/setup test lint
	@CLANG_FORMAT=$(CLANG_FORMAT) ops/lint
	@+$(again) $(if $(filter true,$(CI)),,BUILD=$(BUILD)/lint) CI=true everything
	@+$(again) BUILD=$(BUILD)/clang CC=$(CLANG) CFLAGS=-O0 CI=true everything

everything: all test-programs $(BENCHES:%=$(B)/bench/%) $(call objects,$(wildcard tests/fuzz/*.c))

layers: ## check that includes go down the layers, and to each library through its one door
	@ops/layers

format: ## format all tracked C files in place
	@ops/setup lint
	git ls-files '*.c' '*.h' | xargs -r $(CLANG_FORMAT) -i

fuzz: ## run every fuzz program of tests/fuzz, for MINUTES in all
	@ops/setup fuzz
	@+$(again) CC=$(CLANG) BUILD=$(BUILD)/fuzz SAN= \
	  SANFLAGS=-fsanitize=fuzzer-no-link,address,undefined fuzz-programs
	@ops/fuzz $(BUILD)/fuzz $(MINUTES)

fuzz-programs: $(FUZZERS:%=$(B)/bin/%)

python: ## build the Python client: a wheel and a source package in build/python
	@ops/setup python
	@ops/wheel $(BUILD)/python

install: all ## install under PREFIX (default /usr/local), with DESTDIR in front
	@B=$(B) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) \
	  LIBS='$(call libs,$(PKG_base) $(PKG_schemas))' ops/install

clean: ## remove everything that was built
	rm -rf $(BUILD)

# --- rules ----------------------------------------------------------------------------------------
# Two files remember what the last build was told, and change only when that changes: a new flag
# recompiles everything, a source that came or went re-links.
define remember
ifneq ($$(strip $$(file <$(B)/$(1))),$$(strip $(2)))
$$(shell mkdir -p $(B))$$(file >$(B)/$(1),$(strip $(2)))
endif
endef
ifeq ($(filter help clean run test setup format layers python,$(MAKECMDGOALS)),)
$(eval $(call remember,flags,$(CC) $(FLAGS) $(LINK_broker)))
$(eval $(call remember,files,files: $(SRC_all) $(SRC_tests)))
endif

AVX512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16
$(B)/obj/%_avx2.o:   EXTRA := -mavx2 -mfma -mf16c
$(B)/obj/%_avx512.o: EXTRA := $(AVX512) -mfma -mf16c
$(B)/obj/workers/encode/image_%.o: EXTRA := -O3
$(B)/obj/workers/extract/%.o: EXTRA := $(shell pkg-config --cflags $(PKG_extract) 2>/dev/null || echo missing)
$(call objects,$(SRC_base) $(SRC_schemas) $(SRC_client)): EXTRA := -fPIC

# Each object leaves its line for compile_commands.json beside it.
$(B)/obj/%.o: %.c $(B)/flags
	$(if $(filter missing,$(PKG_CFLAGS) $(EXTRA)),$(error libraries are missing: run ops/setup))
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) $(EXTRA) -MMD -MP -c -o $@ $<
	@printf '{"directory": "%s", "file": "%s", "command": "%s"}\n' '$(CURDIR)' '$<' \
	  '$(CC) $(FLAGS) $(EXTRA) -c $<' >$(@:.o=.json)

$(B)/compile_commands.json: $(call objects,$(SRC_all)) $(B)/files
	@{ echo '['; cat $(patsubst %.o,%.json,$(filter %.o,$^)) /dev/null | sed '$$!s/$$/,/'; \
	  echo ']'; } >$@

# The programs look for them where they are installed.
$(SHARE):
	@mkdir -p $(@D) && ln -sfnr $(patsubst python,client/python,$(patsubst recipes,examples/qc,$(@F))) $@

define library
$(1): $(call objects,$(2)) $(B)/files
	$$(call say,AR,$$@)
	@mkdir -p $$(@D) && rm -f $$@
	$$(Q)$$(AR) rcs $$@ $$(filter %.o,$$^)
endef
$(foreach l,$(LAYERS),$(eval $(call library,$(call archive,$(l)),$(filter-out $(MAINS),$(SRC_$(l))))))

# The client library for others: self-contained; the shared one shows its own names only, and takes
# of the lower layers what it uses.
$(eval $(call library,$(B)/lib/libpenstock.a,$(SRC_client) $(SRC_schemas) $(SRC_base)))
$(B)/lib/libpenstock.so: $(call objects,$(SRC_client)) $(call archive,schemas base) $(B)/files
	$(call say,LD,$@)
	@mkdir -p $(@D) && echo '{ global: penstock_*; local: *; };' >$@.map
	$(Q)$(LINK) -shared -Wl,-soname,libpenstock.so.0 -Wl,--version-script,$@.map -o $@ \
	  $(filter %.o %.a,$^) $(call libs,$(PKG_base) $(PKG_schemas))

# Preloaded into a program to watch or to break what it asks of the system.
$(call objects,$(wildcard tests/faults/*.c)): EXTRA := -fPIC
$(B)/faults/%.so: $(B)/obj/tests/faults/%.o
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -o $@ $<

# $(1) program, $(2) its own sources, $(3) layers, $(4) more libraries
define program
$(1): $(call objects,$(2)) $(call archive,$(3)) $(B)/files
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(LINK) -o $$@ $$(filter %.o %.a,$$^) $$(call libs,$(foreach l,$(3),$(PKG_$(l)))) $(4)
endef
tester = $(eval $(call program,$(B)/$(1),$(2),$(USES_test),$(3)))
$(foreach p,$(PROGRAMS),$(eval $(call program,$(B)/bin/$(p),$(MAIN_$(p)),$(USES_$(p)))))
$(foreach t,$(TESTS),$(call tester,test/$(t),$(wildcard tests/$(t)/*.c),-lcriterion $(LINK_$(t))))
$(foreach b,$(BENCHES),$(call tester,bench/$(b),$(wildcard tests/bench/$(b).c \
    tests/bench/$(b)/*.c tests/bench/report/*.c),$(LINK_$(b))))
$(eval $(call program,$(B)/faults/replay,tests/faults/replay.c tests/faults/medium.c,store schemas base))
# The broker with a bug that the tests must find: it acknowledges before it commits.
$(eval $(call program,$(B)/faults/early-ack/penstock-broker,broker/main.c tests/faults/early_ack.c,\
    $(USES_penstock-broker),$(addprefix -Wl$(comma)--wrap=,store_commit store_write_begin ring_wait)))
$(foreach f,$(FUZZERS),$(call tester,bin/$(f),tests/fuzz/$(f).c $(WITH_$(f)),-fsanitize=fuzzer $(LINK_$(f))))

-include $(patsubst %.c,$(B)/obj/%.d,$(SRC_all) $(SRC_tests))
