# A tree there and back: content, modes, times to the nanosecond, symbolic and hard links, holes.
mkdir tree
n=0
while [ "$n" -lt "$((ROUNDS * 40))" ]; do
    mkdir -p "tree/d$((n % 8))/e$n"
    seq 1 "$n" >"tree/d$((n % 8))/e$n/file"
    ln "tree/d$((n % 8))/e$n/file" "tree/d$((n % 8))/e$n/hard"
    ln -s ../absent "tree/d$((n % 8))/e$n/soft"
    chmod "6$((n % 8))4" "tree/d$((n % 8))/e$n/file"
    n=$((n + 1))
done
truncate -s 16M tree/holes
mkfifo tree/fifo
printf x >"tree/$(printf '\377\376')"
list() {
    (cd "$1" && find . -printf '%P %y %m %n %s %T@ %l\n' | sort)
}
# Directories differ in size between file systems, and in time once something is unpacked in them.
list tree | sed 's/^\(.* d [0-7]* [0-9]*\) [0-9]* .*/\1/' >before
# A pax archive keeps nanoseconds.
tar --format=pax --sparse -cf tree.tar tree
mkdir back
tar -xpf tree.tar -C back
list back/tree | sed 's/^\(.* d [0-7]* [0-9]*\) [0-9]* .*/\1/' >after
cmp before after
rm tree/fifo back/tree/fifo
diff -r --no-dereference tree back/tree
[ "$(stat -c %h back/tree/d1/e1/hard)" = 2 ]
[ "$(stat -c %i back/tree/d1/e1/hard)" = "$(stat -c %i back/tree/d1/e1/file)" ]
[ "$(stat -c %b back/tree/holes)" -lt 2048 ]
rm -r tree back tree.tar
