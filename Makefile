# Penstock. `make run` shows the engine working, `make test` proves it; `make help` lists the rest.
#
# One make, no recursion over directories: sources are found by wildcard, each layer becomes a static
# library, and programs link the layers they may use, in the order of the layers. Everything that is
# built lies under build/. Nothing here needs `make clean` first: flags and file lists are remembered.

BUILD  ?= build#       where everything is built
SAN    ?=#             address,undefined or thread: a separate build with these sanitizers
V      ?=#             V=1 prints the commands
PREFIX ?= /usr/local
MINUTES ?= 10#         how long `make fuzz` runs, shared by the fuzz programs
GROUPS ?=#             which test groups `make test` runs; all when empty
export PENSTOCK_DATA CASES# read by tests and benchmarks: outside data, and how many random cases

CLANG        ?= clang-14
CLANG_FORMAT ?= clang-format-14# another version formats differently, so this one is pinned

comma := ,
B     := $(BUILD)$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
X86   := $(filter x86_64%,$(shell $(CC) -dumpmachine 2>/dev/null))
Q     := $(if $(V),,@)
SUBMAKE = $(MAKE) --no-print-directory $(if $(V),,-s)
say    = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))
MAKEFLAGS += --no-builtin-rules $(if $(filter 0,$(MAKELEVEL)),-j$(shell nproc))

# --- flags -----------------------------------------------------------------------------------------
PKG_MSGPACK := $(firstword $(foreach p,msgpack-c msgpackc msgpack,$(shell pkg-config --exists $(p) 2>/dev/null && echo $(p))) msgpack)
PKG_base      := libzmq jansson libpcre2-8 libutf8proc libsodium
PKG_schemas   := $(PKG_MSGPACK)
PKG_store     := lmdb
PKG_pipelines := libcyaml
PKGS := $(PKG_base) $(PKG_schemas) $(PKG_store) $(PKG_pipelines)

PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null || echo missing)
libs = $(shell pkg-config --libs $(1)) -lm

CSTD   := -std=c11 -D_GNU_SOURCE -I. $(filter-out missing,$(PKG_CFLAGS))
WARN   := -Wall -Wextra -Wconversion -Wshadow -Werror=implicit-function-declaration $(if $(filter true,$(CI)),-Werror)
CFLAGS ?= -O2 -g
SANFLAGS   := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all)
ALL_CFLAGS  = $(CSTD) $(CFLAGS) -ffp-contract=off -fno-omit-frame-pointer -pthread $(WARN) $(SANFLAGS)
ALL_LDFLAGS = $(LDFLAGS) -pthread -Wl,--as-needed $(SANFLAGS)

# --- sources, libraries, programs ------------------------------------------------------------------
# The C files of some directories; those for one instruction set only where the target has it.
csources = $(filter-out $(if $(X86),,%_avx2.c %_avx512.c),$(foreach d,$(1),$(sort $(wildcard $(d)/*.c))))
objects  = $(patsubst %.c,$(B)/obj/%.o,$(1))

LAYERS := base schemas store pipelines kernels client cli broker workers
DIR_base      := base
DIR_schemas   := schemas
DIR_store     := store
DIR_pipelines := pipelines
DIR_kernels   := kernels kernels/ref kernels/cpu
DIR_client    := client
DIR_cli       := client/cli
DIR_broker    := broker
DIR_workers   := workers workers/encode workers/infer workers/post workers/train
$(foreach l,$(LAYERS),$(eval SRC_$(l) := $(call csources,$(DIR_$(l)))))
layer = $(patsubst %,$(B)/lib/libps-%.a,$(1))

# program: its main file, then its layers from top to bottom, which is also the order of linking
MAIN_penstock-broker := broker/main.c
USES_penstock-broker := broker pipelines store schemas base
MAIN_penstock-worker := workers/main.c
USES_penstock-worker := workers kernels pipelines store schemas base
MAIN_penstock        := client/cli/main.c
USES_penstock        := cli client pipelines schemas base
USES_test            := workers broker cli client kernels pipelines store schemas base
PROGRAMS := $(foreach p,penstock-broker penstock-worker penstock,$(if $(wildcard $(MAIN_$(p))),$(p)))
MAINS    := $(foreach p,$(PROGRAMS),$(MAIN_$(p)))

GROUPS_C   := $(filter-out bench fuzz,$(sort $(patsubst tests/%/,%,$(dir $(wildcard tests/*/*.c)))))
BENCHES    := $(sort $(basename $(notdir $(wildcard tests/bench/*.c))) $(patsubst tests/bench/%/,%,$(dir $(wildcard tests/bench/*/*.c))))
FUZZERS    := $(sort $(basename $(notdir $(wildcard tests/fuzz/*.c))))
SRC_TESTS  := $(sort $(wildcard tests/*/*.c tests/bench/*/*.c))
SRC_ALL    := $(foreach l,$(LAYERS),$(SRC_$(l)))

TEST_PROGRAMS := $(GROUPS_C:%=$(B)/test/%)
LIBRARIES     := $(call layer,$(LAYERS)) $(if $(SRC_client),$(B)/lib/libpenstock.a $(B)/lib/libpenstock.so)

# --- everyday targets ------------------------------------------------------------------------------
.DEFAULT_GOAL := all
.PHONY: help all setup models run test test-programs lint layers format fuzz fuzz-programs install clean
.DELETE_ON_ERROR:
.SECONDARY:

help: ## list the targets
	@sed -n 's/^\([a-z%-]*\):[^#]*## /\1\t/p' Makefile | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo '  variables: SAN=address,undefined|thread  GROUPS="unit kernels"  PENSTOCK_DATA=DIR  CASES=N  CC=  V=1  BUILD='

all: $(PROGRAMS:%=$(B)/bin/%) $(LIBRARIES) $(B)/compile_commands.json ## build programs and libraries into build/bin and build/lib

setup: ## install the Debian or Ubuntu packages that are missing
	@ops/setup

run: ## set up, build, fetch the model once, and run four jobs end to end
	@ops/setup
	@+$(SUBMAKE) all
	@PENSTOCK_BIN=$(abspath $(B)/bin) ops/run

test: ## set up, build and run all test groups; the last line is `N passed, N failed, N skipped`
	@ops/setup test
	@ops/models >/dev/null || [ $$? -eq 4 ]
	@+$(SUBMAKE) all test-programs
	@SAN=$(SAN) tests/run $(B) $(GROUPS)

test-programs: $(TEST_PROGRAMS)

bench-%: $(B)/bench/% all ## run one benchmark of tests/bench; prints a table and writes build/bench/NAME.json
	$(Q)PENSTOCK_BIN=$(abspath $(B)/bin) PENSTOCK_COMMIT=$$(git describe --always --dirty) $< $(ARGS)

lint: layers ## check format (pinned clang-format), layers, Python, and that nothing warns
	@ops/setup test lint
	@CLANG_FORMAT=$(CLANG_FORMAT) ops/lint
	@+$(SUBMAKE) $(if $(filter true,$(CI)),,BUILD=$(BUILD)/lint) CI=true all test-programs

layers: ## check that includes go down the layers only and that each library has its one door
	@ops/layers

format: ## format all tracked C files in place
	@ops/setup lint
	git ls-files '*.c' '*.h' | xargs -r $(CLANG_FORMAT) -i

fuzz: ## run every fuzz program of tests/fuzz for MINUTES in all
	@ops/setup fuzz
	@+$(SUBMAKE) CC=$(CLANG) BUILD=$(BUILD)/fuzz SAN= \
	  SANFLAGS=-fsanitize=fuzzer-no-link,address,undefined fuzz-programs
	@ops/fuzz $(BUILD)/fuzz $(MINUTES)

fuzz-programs: $(FUZZERS:%=$(B)/bin/%)

install: all ## install under PREFIX (default /usr/local), with DESTDIR in front
	@B=$(B) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) ops/install

clean: ## remove everything that was built
	rm -rf $(BUILD)

# --- rules -----------------------------------------------------------------------------------------
# Two files remember what the last build was told, and change only when that changes: a new flag
# recompiles everything, a source that came or went re-links.
define remember
ifneq ($$(strip $$(file <$(B)/$(1))),$$(strip $(2)))
$$(shell mkdir -p $(B))$$(file >$(B)/$(1),$(strip $(2)))
endif
endef
ifeq ($(filter help clean run test setup format layers,$(MAKECMDGOALS)),)
$(eval $(call remember,flags,$(CC) $(ALL_CFLAGS)))
$(eval $(call remember,files,files: $(SRC_ALL) $(SRC_TESTS)))
endif

$(B)/obj/%_avx2.o:   ISA := -mavx2 -mfma -mf16c
$(B)/obj/%_avx512.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16 -mfma -mf16c
$(call objects,$(SRC_base) $(SRC_schemas) $(SRC_client)): ISA := -fPIC

# Each object leaves its line for compile_commands.json behind.
$(B)/obj/%.o: %.c $(B)/flags
	$(if $(filter missing,$(PKG_CFLAGS)),$(error libraries are missing: run ops/setup, or install the packages that it names))
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ISA) -MMD -MP -c -o $@ $<
	@printf '{"directory":"%s","file":"%s","command":"%s"}\n' '$(CURDIR)' '$<' '$(CC) $(ALL_CFLAGS) $(ISA) -c $<' >$(@:.o=.json)

$(B)/compile_commands.json: $(call objects,$(SRC_ALL) $(MAINS)) $(B)/files
	@{ echo '['; cat $(patsubst %.o,%.json,$(filter %.o,$^)) /dev/null | sed '$$!s/$$/,/'; echo ']'; } >$@

define library
$(call layer,$(1)): $(call objects,$(filter-out $(MAINS),$(SRC_$(1)))) $(B)/files
	$$(call say,AR,$$@)
	@mkdir -p $$(@D) && rm -f $$@
	$$(Q)$$(AR) rcs $$@ $$(filter %.o,$$^)
endef
$(foreach l,$(LAYERS),$(eval $(call library,$(l))))

# The client library for others: self-contained, and the shared one shows only its own names.
OBJ_libpenstock := $(call objects,$(SRC_client) $(SRC_schemas) $(SRC_base))
$(B)/lib/libpenstock.a: $(OBJ_libpenstock) $(B)/files
	$(call say,AR,$@)
	@mkdir -p $(@D) && rm -f $@
	$(Q)$(AR) rcs $@ $(OBJ_libpenstock)

$(B)/lib/libpenstock.so: $(OBJ_libpenstock) $(B)/files
	$(call say,LD,$@)
	@mkdir -p $(@D) && echo '{ global: penstock_*; local: *; };' >$@.map
	$(Q)$(CC) -shared -Wl,-soname,libpenstock.so.0 -Wl,--version-script,$@.map -o $@ $(OBJ_libpenstock) \
	  $(ALL_LDFLAGS) $(call libs,$(PKG_base) $(PKG_schemas))

define program
$(B)/bin/$(1): $(call objects,$(MAIN_$(1))) $(call layer,$(USES_$(1)))
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(CC) -o $$@ $$^ $$(ALL_LDFLAGS) $$(call libs,$(foreach l,$(USES_$(1)),$(PKG_$(l))))
endef
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))

# Test, benchmark and fuzz programs may link everything but the mains.
define tester
$(1): $(call objects,$(2)) $(call layer,$(USES_test)) $(B)/files
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(CC) -o $$@ $$(filter %.o %.a,$$^) $$(ALL_LDFLAGS) $$(call libs,$(PKGS)) $(3)
endef
$(foreach g,$(GROUPS_C),$(eval $(call tester,$(B)/test/$(g),$(wildcard tests/$(g)/*.c),-lcriterion)))
$(foreach b,$(BENCHES),$(eval $(call tester,$(B)/bench/$(b),$(wildcard tests/bench/$(b).c tests/bench/$(b)/*.c))))
$(foreach f,$(FUZZERS),$(eval $(call tester,$(B)/bin/$(f),tests/fuzz/$(f).c,-fsanitize=fuzzer)))

-include $(patsubst %.c,$(B)/obj/%.d,$(SRC_ALL) $(SRC_TESTS))
