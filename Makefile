# SPDX-License-Identifier: MIT
#
# A thin front door; Meson and the scripts do the work. Every target installs the Debian packages
# that it misses (tools/packages.txt).

.PHONY: all check demo bench prove deb install clean distclean
MAKEFLAGS += --no-print-directory

all: build/build.ninja
	@meson compile -C build

build/build.ninja:
	@tools/need build check
	@meson setup build --werror

# build, source checks, unit tests, fuzz corpora, and whole machines in the lab
check:
	@tools/check

# a Debian guest of the service, from nothing to its login and away again
demo: all
	@tools/need lab guest
	@tools/demo

# measurements against QEMU; ONLY=id runs one row
bench: all
	@tools/need lab guest bench
	@bench/run $(ONLY)

# Frama-C's proof of the arithmetic on a guest's numbers
prove:
	@tools/prove

# a Debian package: build/partita_VERSION_ARCH.deb
deb:
	@tools/need build package
	@tools/deb

# DESTDIR is honoured
install: all
	@meson install -C build

# keeps the kernels and images in build/cache; distclean does not
clean:
	@[ ! -e build/build.ninja ] || meson compile -C build --clean
	@rm -rf build/lab-tests build/bench.json

distclean:
	@rm -rf build
