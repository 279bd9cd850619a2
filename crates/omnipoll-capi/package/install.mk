# What is installed, and how: included by the Makefile, whose variables it uses.

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
OBJCOPY ?= objcopy
STRIP ?= strip
LDCONFIG ?= PATH="$$PATH:/usr/sbin:/sbin" ldconfig

PACKAGE := crates/omnipoll-capi/package
CAPI := target/release/libomnipoll_capi
BUILT := target/capi
workspace = $(shell sed -n 's/^$(1) = "\(.*\)"/\1/p' Cargo.toml)
VERSION := $(call workspace,version)
SHARED := libomnipoll.so.$(VERSION)
# What libomnipoll.a needs besides.
LIBRARIES := $(shell sed -n 's/^Libs.private: //p' $(PACKAGE)/omnipoll.pc.in)

$(CAPI).a:
	@$(MAKE) library

# The shared library is linked of the static one, because rustc gives the linker a version script of
# its own, in which versions have no names and to which GNU ld adds none. Debugging information goes into a
# file beside it.
$(BUILT)/$(SHARED): $(CAPI).a $(PACKAGE)/omnipoll.map
	@mkdir -p $(BUILT)
	$(CC) -shared -o $@ -Wl,-soname,libomnipoll.so.0 -Wl,--version-script=$(PACKAGE)/omnipoll.map \
	    -Wl,--whole-archive $< -Wl,--no-whole-archive -Wl,--gc-sections -Wl,-z,relro,-z,now -Wl,-O1 \
	    -Wl,--as-needed $(LDFLAGS) $(LIBRARIES)
	$(OBJCOPY) --only-keep-debug $@ $@.debug
	$(STRIP) $@
	cd $(BUILT) && $(OBJCOPY) --add-gnu-debuglink=$(SHARED).debug $(SHARED)

$(BUILT)/man/omnipoll.3: include/omnipoll.h $(PACKAGE)/man.py
	$(PYTHON) $(PACKAGE)/man.py $< $(@D)

fill = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
    -e 's|@URL@|$(call workspace,repository)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBRARIES@|$(LIBRARIES)|' \
    -e "s|@INCLUDE@|$$($(PYTHON) -c 'import os, sys; print(os.path.relpath(*sys.argv[1:]))' $(INCLUDEDIR) $(LIBDIR))|" $(PACKAGE)/$(1).in > $(2)/$(1)

# What was installed, for `make uninstall`.
INSTALLED := $(DATADIR)/omnipoll/installed
CMAKEDIR := $(LIBDIR)/cmake/omnipoll
DOCDIR := $(DATADIR)/doc/omnipoll
OURS := $(DATADIR)/omnipoll $(DOCDIR) $(CMAKEDIR)

# Builds only what is missing: root may have no cargo.
install: $(CAPI).a $(BUILT)/$(SHARED) $(BUILT)/man/omnipoll.3  ## Install the C library; PREFIX=/usr/local LIBDIR= INCLUDEDIR= DATADIR= MANDIR= DESTDIR=
	install -d $(addprefix $(DESTDIR),$(LIBDIR)/pkgconfig $(LIBDIR)/.debug $(INCLUDEDIR) $(MANDIR)/man3 $(OURS))
	install -m 755 $(BUILT)/$(SHARED) $(DESTDIR)$(LIBDIR)/$(SHARED)
	install -m 644 $(BUILT)/$(SHARED).debug $(DESTDIR)$(LIBDIR)/.debug/$(SHARED).debug
	ln -sf $(SHARED) $(DESTDIR)$(LIBDIR)/libomnipoll.so.0
	ln -sf libomnipoll.so.0 $(DESTDIR)$(LIBDIR)/libomnipoll.so
	install -m 644 $(CAPI).a $(DESTDIR)$(LIBDIR)/libomnipoll.a
	$(STRIP) -S $(DESTDIR)$(LIBDIR)/libomnipoll.a
	install -m 644 include/omnipoll.h $(DESTDIR)$(INCLUDEDIR)/omnipoll.h
	install -m 644 $(BUILT)/man/*.3 $(DESTDIR)$(MANDIR)/man3
	install -m 644 crates/omnipoll-capi/omnipoll.supp $(DESTDIR)$(DATADIR)/omnipoll/omnipoll.supp
	install -m 644 LICENSE-APACHE LICENSE-MIT $(DESTDIR)$(DOCDIR)
	$(call fill,omnipoll.pc,$(DESTDIR)$(LIBDIR)/pkgconfig)
	$(call fill,omnipoll-config.cmake,$(DESTDIR)$(CMAKEDIR))
	$(call fill,omnipoll-config-version.cmake,$(DESTDIR)$(CMAKEDIR))
	@ls $(BUILT)/man | sed 's|^|$(MANDIR)/man3/|' > $(DESTDIR)$(INSTALLED)
	@printf '%s\n' $(LIBDIR)/$(SHARED) $(LIBDIR)/.debug/$(SHARED).debug $(LIBDIR)/libomnipoll.so.0 \
	    $(LIBDIR)/libomnipoll.so $(LIBDIR)/libomnipoll.a $(INCLUDEDIR)/omnipoll.h \
	    $(DATADIR)/omnipoll/omnipoll.supp $(DOCDIR)/LICENSE-APACHE $(DOCDIR)/LICENSE-MIT \
	    $(LIBDIR)/pkgconfig/omnipoll.pc $(CMAKEDIR)/omnipoll-config.cmake \
	    $(CMAKEDIR)/omnipoll-config-version.cmake $(INSTALLED) >> $(DESTDIR)$(INSTALLED)
	@$(if $(DESTDIR),:,$(update_loader_cache))

# The loader finds a new library when its cache was made again, which takes root, and if the cache has
# this folder at all. A package that is staged in DESTDIR does it where it is unpacked.
define update_loader_cache
$(LDCONFIG) 2>/dev/null; \
$(LDCONFIG) -p 2>/dev/null | grep -q ' $(LIBDIR)/libomnipoll.so.0$$' \
|| echo "The loader's cache has no $(LIBDIR)/libomnipoll.so.0: run ldconfig as root if it has this folder," \
        "or else set LD_LIBRARY_PATH=$(LIBDIR)"
endef

uninstall:  ## Remove what `make install` with the same PREFIX, DATADIR and DESTDIR has installed
	sed 's|^|$(DESTDIR)|' $(DESTDIR)$(INSTALLED) | tr '\n' '\0' | xargs -0 rm -f
	@rmdir $(addprefix $(DESTDIR),$(OURS) $(LIBDIR)/.debug) 2>/dev/null || :
	@$(if $(DESTDIR),:,$(LDCONFIG) 2>/dev/null || :)

.PHONY: install uninstall

WHEEL := target/wheels/deb

deb: library $(VENV)  ## Build Debian packages into target/deb: the library, its -dev, the Python package
	@rm -rf $(WHEEL)
	@PATH="$(CURDIR)/.venv/bin:$$PATH" python -m pip wheel --quiet --no-build-isolation --no-deps \
	    --wheel-dir $(WHEEL) ./python
	@$(PACKAGE)/deb.sh $(CURDIR)/target/deb $(CURDIR)/$(WHEEL)/*.whl
	@ls target/deb

.PHONY: deb
