#!/bin/sh
# Makes Debian packages in the folder OUT of what is built and of the Python wheel: deb.sh OUT WHEEL.
# libomnipoll0 has the shared library, libomnipoll-dev what programs are built with, python3-omnipoll the
# Python package. `make deb` calls it.
set -eu
out=$1 wheel=$2
cd "$(dirname "$0")/../../.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
url=$(sed -n 's/^repository = "\(.*\)"/\1/p' Cargo.toml)
architecture=$(dpkg --print-architecture)
libdir=/usr/lib/$(${CC:-cc} -print-multiarch)
rm -rf "$out"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# glibc FILE: the newest version of glibc that has a symbol which the file needs.
glibc() {
    readelf -V "$1" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1 | cut -d_ -f2
}

# package NAME DEPENDS SUMMARY: of what is in $work/NAME.
package() {
    mkdir -p "$work/$1/DEBIAN" "$work/$1/usr/share/doc/$1"
    cat LICENSE-MIT LICENSE-APACHE > "$work/$1/usr/share/doc/$1/copyright"
    cat > "$work/$1/DEBIAN/control" <<EOF
Package: $1
Version: $version
Architecture: $architecture
Maintainer: the omnipoll project <omnipoll@users.noreply.github.com>
Homepage: $url
Section: libs
Priority: optional
Depends: $2
Installed-Size: $(du -sk "$work/$1" | cut -f1)
Description: $3
 One readiness interface over select, poll, epoll and io_uring, with the same
 meaning on each, an event loop and servers on top of it.
EOF
    (cd "$work/$1" && find usr -type f -exec md5sum {} + > DEBIAN/md5sums)
    dpkg-deb -Zgzip --root-owner-group --build "$work/$1" "$out" > /dev/null
}

make --silent install DESTDIR="$work/libomnipoll-dev" PREFIX=/usr LIBDIR="$libdir" > /dev/null
cd "$work/libomnipoll-dev"
rm -r usr/share/omnipoll/installed usr/share/doc/omnipoll ".$libdir/.debug"
gzip -9n usr/share/man/man3/*.3
mkdir -p "../libomnipoll0$libdir"
mv ".$libdir"/libomnipoll.so.0* "../libomnipoll0$libdir"
cd - > /dev/null

mkdir "$work/libomnipoll0/DEBIAN"
echo "libomnipoll 0 libomnipoll0 (>= $version)" > "$work/libomnipoll0/DEBIAN/shlibs"
echo "activate-noawait ldconfig" > "$work/libomnipoll0/DEBIAN/triggers"
needed=$(glibc "$work/libomnipoll0$libdir/libomnipoll.so.0")
package libomnipoll0 "libc6 (>= $needed), libgcc-s1" "event loop library, shared library"
package libomnipoll-dev "libomnipoll0 (= $version)" "event loop library, files for development"

python=$work/python3-omnipoll/usr/lib/python3/dist-packages
mkdir -p "$python"
python3 -m zipfile -e "$wheel" "$python"
needed=$(glibc "$(echo "$python"/omnipoll/_native*.so)")
package python3-omnipoll "python3 (>= 3.9), libc6 (>= $needed), libgcc-s1" "event loop library, Python package"
