# cria: one executable in C11 and CUDA. `make help` lists what can be made.

# ---- switches (make NAME=value) ----------------------------------------------------------------
GPU      ?= $(if $(shell command -v nvcc),1,0)
NO_CUDA  := $(if $(shell command -v nvcc),GPU=0,no nvcc in PATH)
DEBUG    ?= 0
SANITIZE ?=
PTX      ?= 0
MPI      ?=
BUILD    ?= build$(if $(MPI),/$(MPI))
CC       := $(if $(filter default,$(origin CC)),gcc,$(CC))
MPICC    ?= mpicc$(if $(MPI),.$(MPI))
NVCC     ?= nvcc
CLANG    ?= clang

# ---- flags --------------------------------------------------------------------------------------
WARN      := -Wall -Wextra -Wshadow -Wconversion
CFLAGS    ?=
BASE      := -std=c11 -D_GNU_SOURCE -Isrc -g -fopenmp -pthread -fno-math-errno -fno-trapping-math -ffp-contract=fast
OPT       := $(if $(filter 1,$(DEBUG)),-O0,-O3)
SAN       := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
DEFINES   := $(if $(filter 1,$(GPU)),-DCRIA_CUDA)
ALL       := $(BASE) $(OPT) $(SAN) $(DEFINES) $(CFLAGS)
LIBS      := -lyaml -lz -lpcre2-8 -lm -lrt -ldl
COMMIT    := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

CUDA_HOME ?= $(patsubst %/bin/,%,$(dir $(realpath $(shell command -v $(NVCC)))))
# Machine code for Hopper; for every other GPU from Ampere on PTX, which its driver compiles, of all but
# the kernels that only Hopper can run. PTX=1 leaves the machine code out where there is PTX, so that
# a test runs what other GPUs run.
HOPPER    := -gencode arch=compute_90a,code=sm_90a
OTHERS    := -gencode arch=compute_80,code=compute_80
PORTABLE  := $(if $(filter 1,$(PTX)),,$(HOPPER)) $(OTHERS)
# 12.4, as a number: 1204. What a version lacks: cuda/compat.cuh. Warnings, spilled registers among them,
# are errors with the toolkit that the kernels were measured with; ptxas of another spills elsewhere.
TOOLKIT   := $(if $(filter 1,$(GPU)),$(shell $(NVCC) --version | \
             sed -n 's/.*release \([0-9]*\)\.\([0-9]*\).*/\1 \2/p' | awk '{ print 100 * $$1 + $$2 }'))
NVFLAGS   := -std=c++17 -Isrc -Icuda -lineinfo $(if $(filter 1,$(DEBUG)),-O0,-O3) \
             $(if $(TOOLKIT),$(shell [ $(TOOLKIT) -lt 1208 ] || echo --compress-mode=size)) \
             $(if $(filter 1300,$(TOOLKIT)),-Werror all-warnings) -Xptxas -warn-spills
CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -lcublasLt -lnccl -lstdc++ -ldl -lrt

# mpicc calls the compiler chosen above, whichever MPI it belongs to.
export MPICH_CC := $(CC)
export OMPI_CC  := $(CC)

# ---- files --------------------------------------------------------------------------------------
SRC   := $(sort $(wildcard src/*.c src/*/*.c))
SRC   := $(if $(filter 1,$(GPU)),$(filter-out src/ops/ops_nogpu.c,$(SRC)),$(SRC))
CU    := $(if $(filter 1,$(GPU)),$(sort $(wildcard cuda/*.cu)))
OBJ   := $(SRC:%.c=$(BUILD)/%.o) $(CU:%.cu=$(BUILD)/%.o)
LIB   := $(BUILD)/libcria.a
TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/test_*.c tests/mpi_*.c)))
BENCH := $(patsubst tests/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/bench_*.c)))
GPU_TESTS := $(patsubst tests/%,$(BUILD)/tests/%,$(basename $(wildcard tests/gpu_*.c tests/gpu_*.cu)))
FUZZ  := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,$(BUILD)/%,$(FUZZ))
REPLAY := $(patsubst tests/fuzz/fuzz_%.c,$(BUILD)/tests/replay_%,$(FUZZ))

# ---- what can be made ---------------------------------------------------------------------------
.PHONY: all tests bench fuzz fuzzers demo check check-long check-slurm check-hosts format-check lint gpu-tests \
        check-gpu bundle clean help FORCE
all: $(BUILD)/cria          ## the executable build/cria (default)
	@echo "built: $(if $(filter 1,$(GPU)),CPU and CUDA,CPU only ($(NO_CUDA)))"
tests: $(TESTS) $(REPLAY)   ## the test programs
bench: $(BENCH)             ## the CPU benchmarks, build/tests/bench_*
fuzz:                       ## libFuzzer programs (clang), build/fuzz/fuzz_*
	@+$(MAKE) GPU=0 CC=$(CLANG) CFLAGS='-O1 -Wno-pass-failed' BUILD="$(BUILD)/fuzz" \
	    SANITIZE=fuzzer-no-link,address,undefined fuzzers
fuzzers: $(FUZZERS)
demo: all                   ## train the tiny model on real text on 2 ranks, stop, resume, plot
	@scripts/demo.sh --no-setup
check: all tests            ## every test that needs no GPU; T=pattern picks some
	@BUILD="$(BUILD)" tests/run.sh $(T)
check-long: all tests       ## make check, lint, TSan, valgrind; all again under ASan and UBSan
	@BUILD="$(BUILD)" LONG=1 tests/run.sh $(T)
	@+$(MAKE) GPU=0 CFLAGS=-O1 SANITIZE=address,undefined BUILD="$(BUILD)/asan" check
check-slurm: all            ## scripts/train.slurm under Slurm, on hosts in namespaces; part of check-long
	@BUILD="$(BUILD)" LONG=1 tests/run.sh long/slurm
check-hosts: all            ## runs across two hosts in namespaces; part of check-long
	@BUILD="$(BUILD)" LONG=1 tests/run.sh long/two_hosts
format-check:               ## names the files that are not as .clang-format says
	@scripts/format_check.sh
lint:                       ## clang-tidy and scripts/lint.sh (cppcheck, shellcheck, pyflakes)
	@tests/long/lint.sh
gpu-tests: $(GPU_TESTS)     ## the test programs that need a GPU
check-gpu: all gpu-tests    ## every test that needs a GPU, on a machine that has one
	@+$(MAKE) PTX=1 BUILD="$(BUILD)/ptx" "$(BUILD)/ptx/tests/gpu_ops" "$(BUILD)/ptx/tests/gpu_attention"
	@BUILD="$(BUILD)" tests/run_gpu.sh
bundle: all gpu-tests       ## build/bundle: what a GPU host without MPI and libyaml needs
	@BUILD="$(BUILD)" scripts/bundle.sh
clean:                      ## delete build/
	rm -rf $(BUILD)
help:                       ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18
	@echo "switches: GPU=0|1 (now $(GPU)) MPI=mpich|openmpi DEBUG=1 SANITIZE=address|undefined|thread CC=clang BUILD=dir"

# ---- rules --------------------------------------------------------------------------------------
# The stamp changes when any flag or the MPI does, and everything depends on it. With MPI=NAME,
# $(BUILD)/mpi holds that MPI's commands, which scripts/env.sh puts into PATH.
STAMP := $(BUILD)/flags
FLAGS := $(CC) $(realpath $(shell command -v $(MPICC))) $(ALL) $(WARN) $(NVCC) $(NVFLAGS) $(PORTABLE)
COMMANDS := mpicc mpirun mpiexec
$(STAMP): FORCE
	@mkdir -p $(BUILD)
	@echo '$(FLAGS)' | cmp -s - $@ || { rm -rf $(BUILD)/mpi && echo '$(FLAGS)' > $@; }
	@$(if $(MPI),mkdir -p $(BUILD)/mpi && for c in $(COMMANDS); do \
	  ln -sf "$$(command -v $$c.$(MPI))" $(BUILD)/mpi/$$c || exit; done)
$(BUILD)/commit: FORCE
	@mkdir -p $(BUILD)
	@echo '$(COMMIT)' | cmp -s - $@ || echo '$(COMMIT)' > $@

$(BUILD)/cria: $(BUILD)/src/main.o $(LIB)
	@echo "  link  $@"
	@$(MPICC) $(ALL) -o $@ $^ $(LIBS) $(if $(CU),$(CUDA_LIBS))

$(LIB): $(filter-out $(BUILD)/src/main.o,$(OBJ))
	@rm -f $@ && ar rcs $@ $^

$(BUILD)/src/base/version.o: ALL += -DCRIA_COMMIT='"$(COMMIT)"'
$(BUILD)/src/base/version.o: $(BUILD)/commit

$(BUILD)/src/comm/%.o: src/comm/%.c $(STAMP)
	@echo "  cc    $<"
	@mkdir -p $(@D)
	@$(MPICC) $(ALL) $(WARN) -MMD -MP -c -o $@ $<

$(BUILD)/src/%.o: src/%.c $(STAMP)
	@echo "  cc    $<"
	@mkdir -p $(@D)
	@$(CC) $(ALL) $(WARN) -MMD -MP -c -o $@ $<

$(BUILD)/cuda/%.o: cuda/%.cu $(STAMP)
	@echo "  nvcc  $<"
	@mkdir -p $(@D)
	@$(NVCC) $(NVFLAGS) $(if $(findstring sm90,$<),$(HOPPER),$(PORTABLE)) -MMD -MP -c -o $@ $<

$(BUILD)/tests/replay_%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $(LIB)
	@echo "  link  $@"
	@mkdir -p $(@D)
	@$(MPICC) $(ALL) -Itests -Wall -Wextra -o $@ $(filter %.c %.a,$^) $(LIBS) $(if $(CU),$(CUDA_LIBS))

$(BUILD)/tests/%: tests/%.cu $(LIB)
	@echo "  nvcc  $@"
	@mkdir -p $(@D)
	@$(NVCC) $(NVFLAGS) $(PORTABLE) -Itests -MMD -MP -MF $@.d -o $@ $< $(LIB) $(CUDA_LIBS) -lz -lgomp

$(BUILD)/tests/%: tests/%.c $(LIB)
	@echo "  link  $@"
	@mkdir -p $(@D)
	@$(MPICC) $(ALL) -Itests -Wall -Wextra -MMD -MP -MF $@.d -o $@ $< $(LIB) -lcmocka $(LIBS) \
	  $(if $(CU),$(CUDA_LIBS))

$(BUILD)/fuzz_%: tests/fuzz/fuzz_%.c $(LIB)
	@echo "  link  $@"
	@$(MPICC) $(ALL) -fsanitize=fuzzer -Itests -Wall -Wextra -o $@ $< $(LIB) $(LIBS)

-include $(OBJ:.o=.d) $(wildcard $(BUILD)/tests/*.d)
