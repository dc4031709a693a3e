# gistd - see README.md. Targets: all check bench examples install
# uninstall clean help.
#
#   V=1                    show the commands
#   SAN=address,undefined  build with sanitizers, into a folder of their own (also SAN=thread)
#   CUDA=1                 build libgistd-cuda.so too: needs nvcc (CUDA_HOME=/usr/local/cuda)
#   PREFIX, DESTDIR        where `make install` puts things, and `make uninstall` takes them from
#   LIBDIR                 where in it the library goes (PREFIX/lib)

VERSION := 0.1.0
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
DESTDIR ?=
CC      ?= cc
SAN     ?=
V       ?= 0

comma   := ,
FLAVOUR := $(if $(FUZZ),fuzz,$(if $(SAN),$(subst $(comma),-,$(SAN)),release)$(if $(filter clang%,$(CC)),-clang))
B       := build/$(FLAVOUR)
Q       := $(if $(filter 1,$(V)),,@)

# --- what is built -------------------------------------------------------------------------------

SRC_base    := $(sort $(wildcard base/*.c))
SRC_engine  := $(sort $(wildcard engine/*.c engine/*/*.c))
SRC_store   := $(sort $(wildcard store/*.c))
SRC_ipc     := $(sort $(wildcard ipc/*.c))
SRC_client  := $(sort $(wildcard client/*.c))
SRC_ctl     := $(sort $(wildcard ctl/*.c))
SRC_http    := $(filter-out http/gist_http.c,$(sort $(wildcard http/*.c)))
SRC_dbus    := $(sort $(wildcard dbus/*.c))
SRC_eval    := $(filter-out eval/gist_eval.c,$(sort $(wildcard eval/*.c)))
SRC_daemon  := $(filter-out daemon/main.c,$(sort $(wildcard daemon/*.c)))
SRC_train   := $(filter-out train/gist_adapter.c train/gist_train.c,$(sort $(wildcard train/*.c train/*/*.c)))
SRC_support := $(sort $(wildcard tests/support/*.c))
SRC_bench   := $(sort $(wildcard bench/*.c))
# Backends in libraries of their own: what both have, what is CUDA's, what is the shim's.
SRC_cuda    := $(sort $(wildcard cuda/*.c))
SRC_nv      := $(sort $(wildcard cuda/nv/*.c))
SRC_shim    := $(sort $(wildcard cuda/shim/*.c))
CU_cuda     := $(sort $(wildcard cuda/*.cu))
SRC_examples := $(sort $(wildcard examples/*.c))
SRC_tests   := $(sort $(wildcard tests/test_*.c))
SRC_fuzz    := $(sort $(wildcard tests/fuzz_*.c))
SH_tests    := $(sort $(wildcard tests/test_*.sh))

TESTS   := $(SRC_tests:tests/%.c=$(B)/tests/%)
BENCHES := $(SRC_bench:bench/%.c=$(B)/bench/%)
EXAMPLES := $(SRC_examples:examples/%.c=$(B)/examples/%)
FUZZERS := $(SRC_fuzz:tests/%.c=$(B)/tests/%)

# --- how -----------------------------------------------------------------------------------------

DEPS_pc  := libprotobuf-c numa libsystemd libxxhash libpcre2-8 libutf8proc liburing json-c libseccomp
CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes $(WERROR)
ALL_CFLAGS := -std=gnu17 $(CFLAGS) $(WARN) -fno-math-errno -fvisibility=hidden -fPIC -pthread \
              -D_GNU_SOURCE -DGISTD_VERSION='"$(VERSION)"' -I. -I$(B)/gen \
              $(shell pkg-config --cflags $(DEPS_pc)) \
              $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
ALL_LDFLAGS := $(LDFLAGS) -pthread $(if $(SAN),-fsanitize=$(SAN))
LIBS_engine := $(shell pkg-config --libs numa libxxhash libpcre2-8 libutf8proc liburing json-c) -lm
LIBS_ipc    := $(shell pkg-config --libs libprotobuf-c)
LIBS_daemon := $(shell pkg-config --libs libsystemd libseccomp)
LIBS_ctl    := $(shell pkg-config --libs libedit ncursesw)
# Several processes on one training run, if Open MPI is here (libopenmpi-dev); else gist-train has one.
MPI         := $(shell pkg-config --exists ompi-c && echo 1)
LIBS_train  := -ldnnl -fopenmp $(shell pkg-config --libs json-c $(if $(MPI),ompi-c))
LIBS_http   := $(shell pkg-config --libs libmicrohttpd json-c libsystemd)
LIBS_dbus   := $(shell pkg-config --libs libsystemd)
LIBS_eval   := $(shell pkg-config --libs json-c) -lm
LIBS_tests  := $(shell pkg-config --libs cmocka)

# Kernels of one instruction set each; the table is picked at run time (engine/cpu/cpu.c).
# No contraction: whether a product is fused must not depend on how the compiler unrolled a loop.
CFLAGS_avx2    := -mavx2 -mfma -mf16c
CFLAGS_avxvnni := $(CFLAGS_avx2) -mavxvnni
CFLAGS_avx512  := $(CFLAGS_avx2) -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
CFLAGS_bf16    := $(CFLAGS_avx512) -mavx512bf16
# Not instrumented: compilers take minutes for one. tests/test_kernels*.c put guard pages behind every
# buffer instead (tests/support/fenced.h), in all flavours.
CFLAGS_wide := -ffp-contract=off -O3 \
               $(if $(filter 1,$(FUZZ)),-fno-sanitize=fuzzer-no-link$(comma)address$(comma)undefined,\
                 $(if $(SAN),-fno-sanitize=all))
wide = $(foreach o,$(patsubst %.c,%.o,$(wildcard engine/cpu/kernels_$(1)*.c)),$(eval CFLAGS_$(o) := $(CFLAGS_$(1)) $(CFLAGS_wide)))
$(call wide,avx2)
$(call wide,avxvnni)
$(call wide,avx512)
$(call wide,bf16)
CFLAGS_engine/cpu/kernels_scalar.o := -ffp-contract=off
CFLAGS_engine/cpu/kernels_scalar_matmul.o := -ffp-contract=off -O3
CFLAGS_engine/sampler.o := -ffp-contract=off -O3
CFLAGS_engine/file/quant.o := -ffp-contract=off -O3
CFLAGS_engine/file/tile.o := -O3
CFLAGS_engine/cpu/fit.o := -O3

# OpenMP, and loops that compilers may vectorise: each has clones for several sets (train/net/vec.c).
CFLAGS_train := -fopenmp -Wno-unknown-pragmas
$(foreach o,$(SRC_train:%.c=%.o) train/gist_train.o,$(eval CFLAGS_$(o) := $(CFLAGS_train)))
CFLAGS_train/ranks.o := $(if $(MPI),-DRANKS_MPI=1 $(shell pkg-config --cflags ompi-c))
CFLAGS_train/net/vec.o := -fopenmp -O3 -fno-trapping-math -ffp-contract=fast

.PHONY: all check bench examples fuzz shim install uninstall clean help
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

all: $(B)/gistd $(B)/gistctl $(B)/gist-adapter $(B)/gist-train $(B)/gist-eval $(B)/gist-http $(B)/gist-dbus $(B)/libgist.so $(B)/libgist.a $(B)/gist.pc

# The GPU's part is a switch, and without nvcc all the rest is built as ever.
CUDA_HOME ?= /usr/local/cuda
NVCC      ?= $(CUDA_HOME)/bin/nvcc
HAVE_NVCC := $(if $(filter 1,$(CUDA)),$(shell command -v $(NVCC)))
ifeq ($(CUDA),1)
ifeq ($(HAVE_NVCC),)
$(info CUDA is off: there is no $(NVCC). Install the CUDA toolkit (13.0), or say where it is by CUDA_HOME=; all else is built.)
else
all: $(B)/libgistd-cuda.so
endif
endif
# CUDA's kernels on the CPU, for tests: g++ is enough.
shim: $(B)/libgistd-cuda-shim.so

# A change of flags rebuilds: the stamp's text is the flags. -Werror makes no other object.
FLAGS_NOW := $(CC) $(filter-out -Werror,$(ALL_CFLAGS)) $(ALL_LDFLAGS) $(if $(MPI),mpi)
$(B)/flags: FORCE
	$(Q)mkdir -p $(B)
	$(Q)echo '$(subst ','\'',$(FLAGS_NOW))' | cmp -s - $@ || echo '$(subst ','\'',$(FLAGS_NOW))' > $@
.PHONY: FORCE

obj = $(1:%.c=$(B)/%.o)
OBJ_gen := $(B)/gen/gistd.pb-c.o

$(B)/gen/gistd.pb-c.c: proto/gistd.proto
	$(Q)mkdir -p $(@D)
	$(if $(Q),@echo "  PROTO   $<")
	$(Q)protoc-c --proto_path=proto --c_out=$(@D) $<
$(B)/gen/gistd.pb-c.h: $(B)/gen/gistd.pb-c.c ;
$(B)/gen/gistd.pb-c.o: $(B)/gen/gistd.pb-c.c $(B)/flags
	$(if $(Q),@echo "  CC      $<")
	$(Q)$(CC) $(ALL_CFLAGS) -Wno-all -Wno-extra -c -o $@ $<
$(call obj,$(SRC_ipc)): $(B)/gen/gistd.pb-c.h

# The page of gist-http, as arrays.
PAGE := $(sort $(wildcard http/page/*))
$(B)/gen/page_data.h: $(PAGE) Makefile
	$(Q)mkdir -p $(@D)
	$(if $(Q),@echo "  PAGE    $@")
	$(Q)for f in $(PAGE); do \
	  echo "static const unsigned char $$(basename $$f | tr . _)[] = {" && \
	  od -An -v -tx1 $$f | sed 's/ \(..\)/0x\1,/g' && echo '};' || exit 1; done > $@
$(B)/http/page.o: $(B)/gen/page_data.h

$(B)/%.o: %.c $(B)/flags
	$(Q)mkdir -p $(@D)
	$(if $(Q),@echo "  CC      $<")
	$(Q)$(CC) $(ALL_CFLAGS) $(CFLAGS_$*.o) -MMD -MP -c -o $@ $<

define archive
$(B)/$(1): $(2)
	$$(if $$(Q),@echo "  AR      $$@")
	$$(Q)rm -f $$@ && $$(AR) rcs $$@ $$^
endef
$(eval $(call archive,libbase.a,$(call obj,$(SRC_base))))
$(eval $(call archive,libengine.a,$(call obj,$(SRC_engine))))
$(eval $(call archive,libstore.a,$(call obj,$(SRC_store))))
$(eval $(call archive,libipc.a,$(call obj,$(SRC_ipc)) $(OBJ_gen)))
# Programs that draw take chart.c from libbase.a; the library needs no mathematics.
$(eval $(call archive,libgist.a,$(call obj,$(SRC_client) $(SRC_ipc) $(filter-out base/chart.c,$(SRC_base))) $(OBJ_gen)))
$(eval $(call archive,libdaemon.a,$(call obj,$(SRC_daemon))))
$(eval $(call archive,libtrain.a,$(call obj,$(SRC_train))))
$(eval $(call archive,libeval.a,$(call obj,$(SRC_eval))))
$(eval $(call archive,libhttp.a,$(call obj,$(SRC_http))))
$(eval $(call archive,libsupport.a,$(call obj,$(SRC_support))))

# The chips that kernels are made for (docs/cuda.md), and code that the driver compiles for later ones.
CUDA_SM    := 80 89 90a 100 120
CUDA_FLAGS := -std=c++17 -O3 -I. $(foreach s,$(CUDA_SM),-gencode arch=compute_$(s),code=sm_$(s)) \
              -gencode arch=compute_80,code=compute_80 -Xcompiler -fPIC,-fvisibility=hidden
CXX        ?= g++
$(foreach o,$(SRC_nv:%.c=%.o),$(eval CFLAGS_$(o) := -isystem $(CUDA_HOME)/include))
CFLAGS_cuda/rt.o := -Icuda/shim

# The runtime's door, of CUDA's.
$(B)/cuda/nv/rt.o: cuda/rt.c $(B)/flags
	$(Q)mkdir -p $(@D)
	$(if $(Q),@echo "  CC      $< (CUDA)")
	$(Q)$(CC) $(ALL_CFLAGS) -isystem $(CUDA_HOME)/include -MMD -MP -c -o $@ $<
$(B)/%.cu.o: %.cu $(B)/flags
	$(Q)mkdir -p $(@D)
	$(if $(Q),@echo "  NVCC    $<")
	$(Q)$(NVCC) $(CUDA_FLAGS) -MMD -MP -c -o $@ $<
# Of the engine they take what has no state, into themselves.
$(B)/libgistd-cuda.so: $(call obj,$(filter-out cuda/rt.c,$(SRC_cuda)) $(SRC_nv)) $(B)/cuda/nv/rt.o $(CU_cuda:%=$(B)/%.o) $(B)/libengine.a $(B)/libbase.a
	$(if $(Q),@echo "  LINK    $@")
	$(Q)$(NVCC) -shared -cudart static -Xlinker -z,defs,--exclude-libs,ALL -o $@ $^ -lm -ldl -lpthread
$(B)/libgistd-cuda-shim.so: $(call obj,$(SRC_cuda) $(SRC_shim)) $(CU_cuda:%=$(B)/cuda/plain/%.o) \
                            $(B)/libengine.a $(B)/libbase.a
	$(if $(Q),@echo "  LINK    $@")
	$(Q)$(CXX) $(ALL_LDFLAGS) -shared -Wl$(comma)-z$(comma)defs$(comma)--exclude-libs$(comma)ALL -o $@ $^ $(LIBS_engine)

link = $(if $(Q),@echo "  LINK    $@";) $(CC) $(ALL_LDFLAGS) -o $@ $(1)

$(B)/libgist.so.0: $(B)/libgist.a
	$(call link,-shared -Wl$(comma)-z$(comma)defs -Wl$(comma)-soname$(comma)libgist.so.0 -Wl$(comma)--whole-archive $< \
	  -Wl$(comma)--no-whole-archive -Wl$(comma)--exclude-libs$(comma)libprotobuf-c.a $(LIBS_ipc))
$(B)/libgist.so: $(B)/libgist.so.0
	$(Q)ln -sf libgist.so.0 $@
$(B)/gistd: $(B)/daemon/main.o $(B)/libdaemon.a $(B)/libengine.a $(B)/libstore.a $(B)/libipc.a $(B)/libbase.a
	$(call link,$^ $(LIBS_engine) $(LIBS_ipc) $(LIBS_daemon))
$(B)/gist-adapter: $(B)/train/gist_adapter.o $(B)/libtrain.a $(B)/libengine.a $(B)/libstore.a $(B)/libbase.a
	$(call link,$^ $(LIBS_engine) $(LIBS_train))
$(B)/gist-train: $(B)/train/gist_train.o $(B)/libtrain.a $(B)/libengine.a $(B)/libstore.a $(B)/libbase.a
	$(call link,$^ $(LIBS_engine) $(LIBS_train))
$(B)/gistctl: $(call obj,$(SRC_ctl)) $(B)/libgist.a
	$(call link,$^ $(LIBS_ipc) $(LIBS_ctl) -lm)
$(B)/gist-http: $(B)/http/gist_http.o $(B)/libhttp.a $(B)/libgist.a $(B)/libbase.a
	$(call link,$^ $(LIBS_ipc) $(LIBS_http))
$(B)/gist-dbus: $(call obj,$(SRC_dbus)) $(B)/libgist.a $(B)/libbase.a
	$(call link,$^ $(LIBS_ipc) $(LIBS_dbus))
$(B)/gist-eval: $(B)/eval/gist_eval.o $(B)/libeval.a $(B)/libgist.a $(B)/libbase.a
	$(call link,$^ $(LIBS_ipc) $(LIBS_eval))

# Test programs have their assertions counted (tests/support/counted.h), and can make calls of ours
# fail (tests/support/fault.h).
FAULTS := malloc calloc realloc reallocarray aligned_alloc strdup strndup asprintf open_memstream \
          XXH3_createState mmap munmap open fcntl fopen fdopen fclose eventfd epoll_create1 memfd_create \
          signalfd socket socketpair accept4 read pread preadv2 write pwrite fwrite fflush fsync ftruncate \
          fstat getline __getdelim rename renameat2 epoll_ctl bind listen connect sendmsg send recvmsg recv pthread_create
WRAP := $(FAULTS) $(foreach a,true return_code int_equal int_not_equal string_equal string_not_equal memory_equal \
          memory_not_equal in_range not_in_range,_assert_$(a)) _cmocka_run_group_tests
# Hand-overs between the daemon's threads that a test delays.
WRAP_test_letters := mailbox_put mailbox_take served_load
# Time that runs away from the scheduler, and a device whose copies are done when the test says so.
WRAP_test_sched := clock_gettime backend_find tier_timeout_ms epoll_wait
# How often a session is asked whether it is kept.
WRAP_test_room := away_is_kept
# A scheduler that sleeps though somebody waits for pages.
WRAP_test_room_mix := epoll_wait
WRAP_test_room_parts := epoll_wait
WRAP_test_room_reads := epoll_wait
# Slices of a segment each, and who is charged for them.
WRAP_test_ranking := rank_go rank_left portion_spent
# A model that takes its time to come back.
WRAP_test_waking := served_wake
# Other processes of a training run.
WRAP_test_run_agree  := ranks_share ranks_sum_double
WRAP_test_run_device := ranks_sum
# A disk that fails, under weights that stream.
WRAP_test_stream := io_open
# A library that is the test's.
WRAP_test_nccl := dlopen dlsym dlclose
$(B)/tests/test_nccl: $(B)/cuda/nv/sums_nccl.o
$(B)/tests/test_view: $(B)/dbus/view.o
# Devices that are the test's, and time that runs away.
WRAP_test_together := clock_gettime
$(B)/tests/test_together: $(B)/cuda/together.o
# Days pass in tests of the store.
WRAP_test_store_limits := when_s when_ns
WRAP_test_store_faults := when_ns
WRAP_test_tier := when_ns

$(B)/tests/test_%: $(B)/tests/test_%.o $(B)/libsupport.a $(B)/libeval.a $(B)/libgist.a $(B)/libdaemon.a $(B)/libtrain.a $(B)/libengine.a $(B)/libstore.a $(B)/libipc.a $(B)/libbase.a
	$(call link,$(filter %.o,$^) $(foreach f,$(WRAP) $(WRAP_$(@F)),-Wl$(comma)--wrap=$(f)) -Wl$(comma)--start-group \
	  $(filter %.a,$^) -Wl$(comma)--end-group $(LIBS_tests) $(LIBS_train) $(LIBS_engine) $(LIBS_ipc) $(LIBS_daemon))
# gist-http alone, with what it is made of.
WRAP_test_http_memory := $(foreach a,new_object new_array new_string new_string_len new_int64 new_double new_boolean \
          object_add array_add to_json_string_length,json_object_$(a)) json_tokener_new_ex
$(B)/tests/test_http%: $(B)/tests/test_http%.o $(B)/libsupport.a $(B)/libhttp.a $(B)/libgist.a $(B)/libbase.a
	$(call link,$< $(foreach f,$(WRAP) $(WRAP_$(@F)),-Wl$(comma)--wrap=$(f)) -Wl$(comma)--start-group \
	  $(filter %.a,$^) -Wl$(comma)--end-group $(LIBS_tests) $(LIBS_ipc) $(LIBS_http) -lxxhash)
# A fuzzer is linked with libFuzzer, or to be run over its kept inputs alone (tests/replay.c).
FUZZ_WRAP = $(foreach f,$(WRAP_fuzz_$*),-Wl$(comma)--wrap=$(f))
# Between two reads of the daemon's side and of a program's, where the other end acts.
WRAP_fuzz_ring        := ring_peek ring_look wire_req_unpack mailbox_pending epoll_wait clock_gettime
WRAP_fuzz_ring_client := ring_peek ring_look wire_rep_unpack chan_wait handshake_connect connect
AR_fuzz      := $(foreach a,support gist daemon engine store ipc base,$(B)/lib$(a).a)
AR_fuzz_http := $(foreach a,support http gist base,$(B)/lib$(a).a)
$(B)/tests/fuzz_http $(B)/tests/replay_http: $(AR_fuzz_http)
$(B)/tests/fuzz_http: $(B)/tests/fuzz_http.o
	$(call link,$(filter %.o,$^) -Wl$(comma)--start-group $(filter %.a,$^) -Wl$(comma)--end-group \
	  -fsanitize=fuzzer $(LIBS_ipc) $(LIBS_http))
$(B)/tests/replay_http: $(B)/tests/replay.o $(B)/tests/fuzz_http.o
	$(call link,$(filter %.o,$^) -Wl$(comma)--start-group $(filter %.a,$^) -Wl$(comma)--end-group $(LIBS_ipc) $(LIBS_http))
$(B)/tests/fuzz_%: $(B)/tests/fuzz_%.o $(AR_fuzz)
	$(call link,$(filter %.o,$^) $(FUZZ_WRAP) -Wl$(comma)--start-group $(filter %.a,$^) -Wl$(comma)--end-group \
	  -fsanitize=fuzzer $(LIBS_engine) $(LIBS_ipc) $(LIBS_daemon))
$(B)/tests/replay_%: $(B)/tests/replay.o $(B)/tests/fuzz_%.o $(AR_fuzz)
	$(call link,$(filter %.o,$^) $(FUZZ_WRAP) -Wl$(comma)--start-group $(filter %.a,$^) -Wl$(comma)--end-group \
	  $(LIBS_engine) $(LIBS_ipc) $(LIBS_daemon))
# Of the trainer only what reads its files: clang has no OpenMP without a package of its own.
$(B)/tests/fuzz_corpus $(B)/tests/replay_corpus: $(B)/train/data/corpus.o $(B)/train/data/corpus_file.o
# The daemon on a backend whose memory the host may not touch; GISTD_TEST_BACKEND=fenced has tests run it.
$(B)/tests/gistd_fenced: $(B)/daemon/main.o $(B)/tests/gistd_fenced.o $(B)/libsupport.a $(B)/libdaemon.a $(B)/libengine.a $(B)/libstore.a $(B)/libipc.a $(B)/libbase.a
	$(call link,$(filter %.o,$^) -Wl$(comma)--wrap=backend_find -Wl$(comma)--start-group $(filter %.a,$^) \
	  -Wl$(comma)--end-group $(LIBS_engine) $(LIBS_ipc) $(LIBS_daemon))
# The wire of before, for a client and a daemon of that time.
$(B)/gen/first.pb-c.c: tests/abi/first.proto
	$(Q)mkdir -p $(@D)
	$(if $(Q),@echo "  PROTO   $<")
	$(Q)protoc-c --proto_path=tests/abi --c_out=$(@D) $<
$(B)/gen/first.pb-c.h: $(B)/gen/first.pb-c.c ;
$(B)/gen/first.pb-c.o: $(B)/gen/first.pb-c.c $(B)/flags
	$(if $(Q),@echo "  CC      $<")
	$(Q)$(CC) $(ALL_CFLAGS) -Wno-all -Wno-extra -c -o $@ $<
$(B)/tests/test_protocols.o: $(B)/gen/first.pb-c.h
$(B)/tests/test_protocols: $(B)/gen/first.pb-c.o
# A program of before: an older header, and the shared library of today.
CFLAGS_tests/abi/first.o := -Itests/abi
$(B)/tests/abi_first: $(B)/tests/abi/first.o $(B)/libgist.so
	$(call link,$< -L$(B) -lgist -Wl$(comma)-rpath$(comma)'$$ORIGIN/..')
# Time that jumps, for any of them (tests/run-jumps).
$(B)/tests/jumps.so: tests/jumps.c $(B)/flags
	$(if $(Q),@echo "  LINK    $@")
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -fPIC -shared -o $@ $<
# Programs that test tools of other languages run.
$(B)/tests/tool_%: $(B)/tests/tool_%.o $(B)/libsupport.a $(B)/libengine.a $(B)/libstore.a $(B)/libbase.a
	$(call link,$^ $(LIBS_engine))
$(B)/bench/%: $(B)/bench/%.o $(B)/libsupport.a $(B)/libgist.a $(B)/libdaemon.a $(B)/libengine.a $(B)/libstore.a $(B)/libbase.a
	$(call link,$^ $(LIBS_engine) $(LIBS_ipc) $(LIBS_daemon))

# Kernels one by one, over CUDA or over the shim.
CUDA_BENCHES := $(foreach p,decode big_model gpu/kernels_shim,$(B)/bench/$(p))
OBJ_bench_gpu := $(call obj,$(sort $(wildcard bench/gpu/*.c)) $(filter-out cuda/rt.c,$(SRC_cuda)))
$(B)/bench/gpu/kernels_shim: $(OBJ_bench_gpu) $(B)/cuda/rt.o $(call obj,$(SRC_shim)) $(CU_cuda:%=$(B)/cuda/plain/%.o) $(B)/libengine.a $(B)/libstore.a $(B)/libbase.a
	$(call link,$^ $(LIBS_engine))
$(B)/bench/gpu/kernels: $(OBJ_bench_gpu) $(call obj,$(SRC_nv)) $(B)/cuda/nv/rt.o $(CU_cuda:%=$(B)/%.o) $(B)/libengine.a $(B)/libstore.a $(B)/libbase.a
	$(if $(Q),@echo "  LINK    $@")
	$(Q)$(NVCC) -cudart static -o $@ $^ $(LIBS_engine) -ldl -lpthread

include cuda/Makefile.inc

# With the public header alone, as programs elsewhere have it.
$(foreach o,$(SRC_examples:%.c=%.o),$(eval CFLAGS_$(o) := -Iclient))
$(B)/examples/%: $(B)/examples/%.o $(B)/libgist.a
	$(call link,$^ $(LIBS_ipc))
examples: $(EXAMPLES) $(B)/gistctl

$(B)/gist.pc: client/gist.pc.in Makefile
	$(Q)mkdir -p $(@D)
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' $< > $@

# --- check, bench, install -----------------------------------------------------------------------

# Warnings are errors here. TESTS_ONLY="gguf vocab" runs some: tests/test_gguf.c, tests/test_examples.sh...
only = $(if $(TESTS_ONLY),$(filter $(TESTS_ONLY:%=$(1)),$(2)),$(2))
RUN_tests := $(call only,$(B)/tests/test_%,$(TESTS)) $(call only,tests/test_%.sh,$(SH_tests))
NO_tests  := $(filter-out $(notdir $(RUN_tests:%.sh=%)),$(TESTS_ONLY:%=test_%))
check:
	$(if $(NO_tests),$(error there is no test of that name: $(NO_tests)))
	$(Q)$(MAKE) --no-print-directory WERROR=-Werror check-run
# What scripts among them run that is neither a program of `all` nor a test.
NEEDS_test_bench_cuda.sh := $(CUDA_BENCHES)
NEEDS_test_crowd.sh      := $(B)/bench/crowd
NEEDS_test_corpora.sh    := $(patsubst tests/corpora/%,$(B)/tests/replay_%,$(wildcard tests/corpora/*))
NEEDS_test_schemas.sh    := $(B)/tests/tool_schema
NEEDS_test_abi.sh        := $(B)/tests/abi_first
.PHONY: check-run
check-run: all shim examples $(RUN_tests) $(foreach t,$(RUN_tests),$(NEEDS_$(notdir $(t)))) $(if $(filter fenced,$(GISTD_TEST_BACKEND)),$(B)/tests/gistd_fenced)
	$(Q)BUILD=$(B) tests/run $(RUN_tests)

# What only a GPU can prove (scripts/test-cuda).
CUDA_TESTS_ON := $(foreach t,backend batch fit compress finite train_step daemon_device,$(B)/tests/test_$(t))
test-cuda-build: all shim $(B)/libgistd-cuda.so $(CUDA_TESTS_ON)
test-cuda: test-cuda-build
	$(Q)BUILD=$(B) scripts/test-cuda
# What only a GPU can tell (scripts/bench-cuda).
bench-cuda-build: all $(CUDA_BENCHES) $(if $(HAVE_NVCC),$(B)/libgistd-cuda.so $(B)/bench/gpu/kernels)
bench-cuda: bench-cuda-build
	$(Q)BUILD=$(B) scripts/bench-cuda
cuda-pack: bench-cuda-build $(if $(HAVE_NVCC),test-cuda-build)
	$(Q)BUILD=$(B) scripts/cuda-pack build/cuda-pack
.PHONY: test-cuda-build test-cuda bench-cuda-build bench-cuda cuda-pack

# Fuzzers want clang, and coverage in every object: a flavour of their own, build/fuzz. Run them by
# tests/run-fuzz.
ifeq ($(FUZZ),1)
fuzz: $(FUZZERS)
else
fuzz:
	$(Q)$(MAKE) --no-print-directory fuzz FUZZ=1 CC=clang SAN=fuzzer-no-link,address,undefined
endif

bench: all $(BENCHES)
	$(Q)BUILD=$(B) bench/run

install: all
	$(Q)DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' LIBDIR='$(LIBDIR)' BUILD=$(B) scripts/install

# Without building what is to go.
uninstall: $(B)/gist.pc
	$(Q)DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' LIBDIR='$(LIBDIR)' BUILD=$(B) scripts/install --remove

clean:
	$(Q)rm -rf build

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

-include $(shell find $(B) -name '*.d' 2>/dev/null)
