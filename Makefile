# The front door. CMake builds (CMakePresets.json); this file only names the errands.
#
#   make run PROMPT="..." MEMORY=48M MODEL=path.gguf

PROMPT ?= Name three things that a plant needs.
MEMORY ?= 64M
MODEL ?=
PORT ?= 8080
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
FUZZ_SECONDS ?= 60
# A regular expression of test names for `make test`, `make sanitize` and `make arm64`.
TESTS ?=
TESTS_EXCEPT ?=
# What of a sanitizer's or the ARM build is built, by name: all of it when empty.
TARGETS ?=
# Not empty: tests run in another order each time.
ORDER ?=
# A regular expression of names in scripts/mutants.list.
MUTANTS ?= .
# Where `make install` puts things, and the folder of a package that is being made.
prefix ?= /usr/local
ifeq ($(origin PREFIX)-$(filter command%,$(origin prefix)),command line-)
prefix := $(PREFIX)
endif
DESTDIR ?=
# What comes from the command line is text: make would read the $ of a regular expression or of a prompt as its own.
$(foreach name,PROMPT MODEL TESTS TESTS_EXCEPT MUTANTS,$(eval override $(name) := $$(value $(name))))
export PROMPT MEMORY MODEL PORT JOBS FUZZ_SECONDS TESTS TESTS_EXCEPT ORDER MUTANTS prefix DESTDIR

.PHONY: help run serve build install uninstall deb test sanitize asan tsan clang fuzz mutants arm64 tarball-arm64 hexagon bench compare clean
.DEFAULT_GOAL := help

help:
	@echo 'make run       set up, build, fetch the default model and answer PROMPT within MEMORY'
	@echo '               make run PROMPT="..." MEMORY=48M MODEL=path.gguf'
	@echo 'make serve     the same up to the model, which then answers on port PORT=$(PORT) (curl, a browser, any client)'
	@echo 'make build     set up and build ./build/powerinfer2'
	@echo 'make install   program, library, headers, manual page and completions into prefix=$(prefix) (DESTDIR=FOLDER);'
	@echo '               make uninstall takes the same away'
	@echo 'make deb       build/powerinfer2_VERSION_ARCH.deb; scripts/fresh_deb.sh FOLDER tries it in an empty Debian 12'
	@echo 'make test      set up, build and run every test (TESTS=regex picks some)'
	@echo 'make sanitize  the same tests under ASan+UBSan, then under TSan (make asan, make tsan: one of them)'
	@echo 'make clang     clang looks at every source of the release build, warnings as errors'
	@echo 'make fuzz      every fuzz target for FUZZ_SECONDS=$(FUZZ_SECONDS) seconds'
	@echo 'make mutants   small wrong changes in a copy: which of them no test notices (MUTANTS=regex picks some)'
	@echo 'make arm64     cross-build for 64-bit ARM and run the tests under qemu'
	@echo 'make tarball-arm64'
	@echo '               build-arm64/powerinfer2-VERSION-aarch64-linux.tar.gz: the program, static, for phones and boards'
	@echo 'make hexagon   what a Hexagon DSP (the NPU of a phone) runs, and its tests under an emulator (docs/devices.md)'
	@echo 'make bench     speed of the default model (or MODEL=) in memory and at 64 and 48 MB'
	@echo 'make compare   the same beside llama.cpp (bench/compare --help)'
	@echo 'make clean     remove everything that was built'

run: build
	@scripts/run.sh

serve: build
	@scripts/serve.sh

build:
	@scripts/setup.sh build
	@scripts/build.sh release

install: build
	@scripts/install.sh

uninstall: build
	@scripts/install.sh --remove

deb: build
	@scripts/deb.sh

test: build
	@scripts/setup.sh opencl
	@scripts/test.sh release

sanitize: asan tsan

asan tsan:
	@scripts/setup.sh build
	@scripts/build.sh $@ $(TARGETS)
	@scripts/test.sh $@

clang: build
	@scripts/setup.sh fuzz
	@scripts/clang.sh

fuzz:
	@scripts/setup.sh build fuzz
	@scripts/build.sh fuzz
	@scripts/fuzz.sh

mutants:
	@scripts/mutants.sh '$(MUTANTS)'

arm64:
	@scripts/setup.sh build arm64
	@scripts/build.sh arm64 $(TARGETS)
	@scripts/test.sh arm64

tarball-arm64:
	@scripts/setup.sh build arm64
	@scripts/build.sh arm64 powerinfer2
	@scripts/tarball.sh

hexagon:
	@scripts/setup.sh build hexagon
	@rm -f build/configured.stamp # CMake looks for clang again
	@scripts/build.sh release
	@TESTS=hexagon scripts/test.sh release

bench: build
	@scripts/bench.sh

compare: build
	@bench/compare

clean:
	@rm -rf build build-*
