# A C library and program by cmake and ninja; the second build must find nothing to do, which takes
# times that are kept to the nanosecond.
if [ -z "$C_SOURCES" ]; then
    echo "no C sources: cargo has not fetched bzip2-sys (cargo fetch)"
    exit 77
fi
cp -r "$C_SOURCES" source
chmod -R u+w source
cat >source/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.10)
project(load C)
add_definitions(-D_FILE_OFFSET_BITS=64)
add_library(bz STATIC blocksort.c huffman.c crctable.c randtable.c compress.c decompress.c bzlib.c)
add_executable(bzip2 bzip2.c)
target_link_libraries(bzip2 bz)
END
cmake -G Ninja -S source -B out -DCMAKE_BUILD_TYPE=Release >/dev/null
ninja -C out >/dev/null
ninja -C out | grep -q 'no work to do'
touch source/compress.c
[ "$(ninja -C out -n | grep -c 'Building C object')" = 1 ]
ninja -C out >/dev/null
ninja -C out | grep -q 'no work to do'
seq 1 200000 >numbers
out/bzip2 -k numbers
out/bzip2 -dc numbers.bz2 | cmp - numbers
