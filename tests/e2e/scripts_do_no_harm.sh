#!/bin/sh
# The scripts delete nothing that nobody asked them to: demo.sh keeps runs that are not its own, and looks
# for what it needs before it touches any; asked for help a script prints that and does nothing else; a
# mistake in a command ends with 2, what is missing on the machine with 3.
. tests/e2e/lib.sh

# A copy of the project with a cria that fails, and a PATH without MPI.
project=$work/project
mkdir -p "$project/build/bundle" "$project/runs" "$work/bin"
cp -r scripts configs "$project"
printf '#!/bin/sh\nexit 3\n' >"$project/build/cria"
chmod +x "$project/build/cria"
touch "$project/build/bundle/precious"
for tool in sh nproc sed dirname rm mkdir touch mv flock python3 cat; do
    ln -s "$(command -v $tool)" "$work/bin/$tool"
done
demo() { run env PATH="$work/bin" sh "$project/scripts/demo.sh" "$@"; }
last_run() { # FILE: a run that the demo has made, with this file in it
    rm -rf "$project/runs/demo"
    mkdir -p "$project/runs/demo"
    touch "$project/runs/demo/.demo" "$project/runs/demo/$1"
}
refused() { # WHAT STATUS TEXT
    expect_status "$1" "$2"
    expect "$1: '$3' on stderr" "$(grep -cF -- "$3" "$work/err")" 1
}
runs() { (cd "$project/runs" && echo */[!.]*); }

last_run first
demo --no-setup
refused 'no mpirun' 3 'mpirun is missing'
expect 'runs without mpirun' "$(runs)" 'demo/first'
ln -s "$project/build/cria" "$work/bin/mpirun"
demo --no-setup
expect_status 'training fails' 3
expect 'runs after that' "$(runs)" 'demo.old/first'
expect 'said of the last run' "$(grep -c 'Moving runs/demo, .* to runs/demo.old' "$work/out")" 1
last_run second
demo --no-setup
expect 'runs after another' "$(runs)" 'demo.old/second'
expect 'said of the run before' "$(grep -c 'Deleting runs/demo.old' "$work/out")" 1
last_run third
rm "$project/runs/demo/.demo"
demo --no-setup
refused 'a run of somebody else' 2 'was not made by the demo'
last_run third
flock -F "$project/runs/demo/.lock" sleep 600 &
job=$!
wait_for sh -c "! flock -n '$project/runs/demo/.lock' true"
demo --no-setup
refused 'a run that is in use' 2 'is in use'
kill "$job"
ended
expect 'runs that are kept' "$(runs)" 'demo.old/second demo/third'
demo --nosetup
refused 'an unknown argument' 2 'unknown argument --nosetup'

for script in scripts/*; do
    case $script in
        *.slurm) shell='bash' ;;
        *.sh) shell='sh' ;;
        *.py) shell='python3 -B' ;;
        *) continue ;;
    esac
    [ -x "$script" ] || [ "$shell" = bash ] || continue # not a command
    for option in --help -h; do
        # shellcheck disable=SC2086 # words
        run $shell "$project/$script" $option
        expect_status "${script##*/} $option" 0
        expect "${script##*/} $option: prints lines" "$([ "$(wc -l <"$work/out")" -ge 3 ] && wc -l <"$work/err")" 0
        expect "${script##*/} $option: lines of more than 80 columns" "$(awk 'length > 80' "$work/out")" ''
    done
    # shellcheck disable=SC2086 # words
    run $shell "$project/$script" --frobnicate
    expect_status "${script##*/} --frobnicate" 2
    expect "${script##*/} --frobnicate: one sentence" \
        "$(wc -l <"$work/out") $(grep -c '' "$work/err") $(grep -c "^${script##*/}: unknown\|^$(basename "$script" .py): unknown" "$work/err")" '0 1 1'
done
for script in setup bundle; do
    run sh "$project/scripts/$script.sh" now
    refused "$script.sh now" 2 'unknown argument now'
done
expect 'what help left' "$(ls "$project/build/bundle")" precious
run python3 -B "$project/scripts/plan_scaling.py" configs/tiny.yaml --cria "$work/none"
refused 'no cria' 3 'cannot start'
