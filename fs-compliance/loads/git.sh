# A repository made on the spot: commits, branches, a merge, clone, gc and fsck; the index must agree
# with the files, which it does only if their times and numbers stay.
export HOME="$PWD" GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q -b main one
cd one
n=0
while [ "$n" -lt "$((ROUNDS * 4))" ]; do
    mkdir -p "d$n/sub"
    for f in 1 2 3 4 5 6 7 8 9 10; do
        seq "$n" "$((n + f * 50))" >"d$n/sub/file$f"
    done
    ln -s ../d0/sub/file1 "d$n/link"
    chmod 755 "d$n/sub/file1"
    git add -A
    git commit -q -m "round $n"
    n=$((n + 1))
done
git checkout -q -b side HEAD~1
git mv d0/sub/file2 moved
git commit -q -m moved
git checkout -q main
git merge -q --no-edit side
git gc -q --prune=now
git fsck --strict --no-progress
cd ..
git clone -q --no-hardlinks one two
git clone -q one three
[ "$(git -C one rev-parse 'HEAD^{tree}')" = "$(git -C two rev-parse 'HEAD^{tree}')" ]
git -C two fsck --strict --no-progress
git -C two repack -a -d -q
git -C three worktree add -q ../four
for r in one two three four; do
    git -C "$r" update-index -q --refresh
    [ -z "$(git -C "$r" status --porcelain)" ]
done
diff -r --exclude=.git one two
