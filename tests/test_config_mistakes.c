/* test_config_mistakes.c: every mistake in a configuration is named, with its place and its cure.
 */
#include "test.h"

#include "config_text.h"

typedef struct {
    const char *text, *override, *expected;
} Mistake;
#define WHOLE(text, expected)                                                                      \
    { text, NULL, expected }
#define LINE(text, expected)                                                                       \
    { LEAST text, NULL, expected }
#define OVERRIDE(override, expected)                                                               \
    { LEAST, override, expected }

static void every_mistake_is_named(void **state) {
    (void)state;
    static const Mistake cases[] = {
        /* keys */
        LINE("modle:\n  x: 1\n", "t.yaml:12: unknown key 'modle', did you mean model?"),
        LINE("run:\n  stepz: 1\n", "t.yaml:13: unknown key 'run.stepz', did you mean run.steps?"),
        LINE("layers: 2\n", "unknown key 'layers', did you mean model.layers?"),
        LINE("run: {lr: 1}\n", "unknown key 'run.lr', did you mean optim.lr?"),
        LINE("optimizer: {lr: 1}\n", "did you mean optim?"),
        LINE("optim: {warmup: 1}\n", "did you mean optim.warmup_steps?"),
        LINE("zzzzzzzz: 1\n", "unknown key 'zzzzzzzz'; `cria config` lists them all"),
        OVERRIDE("parallel.tp=2",
                 "unknown key 'parallel.tp': cria splits a model over ranks by data"),
        OVERRIDE("tensor_parallel.size=2", "not by tensors, layers or experts"),
        OVERRIDE("train.dtype=bf16",
                 "unknown key 'train.dtype': the key precision chooses in what"),
        LINE("wandb: {project: x}\n", "t.yaml:12: unknown key 'wandb': scripts/track.py RUN sends"),
        OVERRIDE("train.gradient_accumulation_steps=2", "are batch.global / (batch.micro * dp)"),
        OVERRIDE("run.dir=", "run.dir: found '', expected a printable string"),
        LINE("run:\n  steps: 1\n  seed: 2\n  steps: 3\n",
             "t.yaml:15: run.steps: found twice, expected once; it is also on line 13"),
        LINE("model: {norm_eps: 1e-6}\n",
             "t.yaml:12: model: found twice, expected once; it is also on line 1"),
        LINE("? [a, b]\n: 1\n", "t.yaml:12: top level: found a list, expected the name of a key"),
        LINE("\"run\\0x\": 1\n", "unknown key '(with a NUL byte)'"),
        LINE("run: 3\n", "t.yaml:12: run: found '3', expected a mapping of its keys"),
        LINE("run: [steps]\n", "run: found a list, expected a mapping of its keys"),
        /* values */
        LINE("run: {steps: ten}\n", "run.steps: found 'ten', expected an integer from 1 to"),
        LINE("run: {steps: 0}\n", "run.steps: found '0', expected an integer from 1 to"),
        LINE("run: {steps: 1e6}\n", "run.steps: found '1e6', expected an integer"),
        LINE("run: {steps: 1_000}\n", "run.steps: found '1_000', expected an integer"),
        LINE("run: {steps: 010}\n", "run.steps: found '010', expected an integer"),
        LINE("run: {steps: \"7\"}\n",
             "run.steps: found '7' (in quotes, so a string), expected an integer"),
        LINE("run: {steps: 99999999999999999999999}\n",
             "found '99999999999999999999999', expected an integer"),
        LINE("run: {steps: -99999999999999999999999}\n", "expected an integer from 1"),
        LINE("run: {seed: 9007199254740992}\n", "an integer from 0 to 9007199254740991"),
        LINE("run:\n  steps:\n", "t.yaml:13: run.steps: its value is missing, expected an integer"),
        LINE("run: {steps: [1]}\n", "run.steps: found a list, expected an integer"),
        LINE("run: {steps: {a: {b: [c, {d: e}]}}}\n",
             "run.steps: found a mapping, expected an integer"),
        LINE("run: {dir: null}\n", "run.dir: its value is missing, expected a printable string"),
        LINE("run: {dir: \"\"}\n",
             "run.dir: found '' (in quotes, so a string), expected a printable string of 1 to"),
        LINE("run: {dir: \"a\\0b\"}\n", "run.dir: found 'a?b'"),
        LINE("run: {dir: \"a\\nb\"}\n", "run.dir: found 'a?b'"),
        LINE("run: {deterministic: yes}\n",
             "run.deterministic: found 'yes', expected true or false"),
        LINE("optim: {lr: .nan}\n", "optim.lr: found '.nan', expected a number from 0 to 100"),
        LINE("optim: {lr: nan}\n", "optim.lr: found 'nan', expected a number"),
        LINE("optim: {lr: inf}\n", "optim.lr: found 'inf', expected a number"),
        LINE("optim: {lr: 1e999}\n", "optim.lr: found '1e999', expected a number"),
        LINE("optim: {lr: 0x10}\n", "optim.lr: found '0x10', expected a number"),
        LINE("optim: {beta1: 1}\n",
             "optim.beta1: found '1', expected a number from 0 to 0.999999999"),
        LINE("parallel: {backend: rings}\n", "parallel.backend: found 'rings', expected one of "
                                             "none, ring, magi, allgather, ulysses"),
        LINE("parallel: {overlap_degree: 9}\n",
             "found '9', expected auto, or an integer from 0 to 8"),
        LINE("parallel: {overlap_degree: -1}\n", "found '-1', expected auto, or an integer"),
        OVERRIDE("data.train=", "data.train: its value is missing, expected a path, a list"),
        OVERRIDE("data.train=[]", "data.train: found an empty list, expected a token file"),
        OVERRIDE("data.train={path: a}", "data.train: found a mapping, expected a path, a list"),
        OVERRIDE("data.train=[a, [b]]",
                 "data.train: found a list, expected the path of a token file"),
        OVERRIDE("data.train=[{weight: 1}]", "data.train: found a file without a path"),
        OVERRIDE("data.train=[{path: a, size: 1}]",
                 "data.train: found 'size', expected path and weight, once each"),
        OVERRIDE("data.train=[{path: a, path: b}]",
                 "data.train: found 'path', expected path and weight, once each"),
        OVERRIDE("data.train=[{path: a, weight: 0}]",
                 "data.train: found '0', expected a weight above 0"),
        OVERRIDE("data.train=[{path: a, weight: 1}, b]", "found weights on 1 of 2 files"),
        OVERRIDE("data.val={web: a, web: b}", "data.val: found the set web twice"),
        OVERRIDE("data.val={web: []}", "data.val: found no file in the set web"),
        OVERRIDE("data.val={web: }", "data.val: found no file in the set web"),
        OVERRIDE("data.val={a b: c}", "data.val: found 'a b', expected the name of a set"),
        OVERRIDE("data.val={path: c}", "data.val: found 'path', expected the name of a set"),
        OVERRIDE("data.val={[a]: c}", "data.val: found a list, expected the name of a set"),
        OVERRIDE("data.val={path: c}", "files with weights are a list, [{path: FILE, weight: W}"),
        OVERRIDE("data.val={web: {path: a}}",
                 "data.val: found a mapping, expected a path, a list of paths, or a list of {path"),
        OVERRIDE("data.val.web=a",
                 "unknown key 'data.val.web': data.val is given as a whole, as 'data.val={web: "
                 "FILES}'"),
        OVERRIDE("data.val={web: [{path: a, weight: 1}, b], books: c}",
                 "data.val: found weights on 1 of 2 files of the set web"),
        OVERRIDE("data.train={web: a}", "data.train: found a mapping, expected a path"),
        OVERRIDE("data.val=[{path: a, weight: 1}, b]", "data.val: found weights on 1 of 2 files"),
        /* YAML */
        WHOLE("", "t.yaml: it holds no keys, expected"),
        WHOLE("# only a comment\n", "t.yaml: it holds no keys, expected"),
        WHOLE("---\n", "t.yaml: it holds no keys, expected"),
        WHOLE("just text",
              "t.yaml:1: top level: found 'just text', expected a mapping such as `model:`"),
        WHOLE("- a\n- b\n", "t.yaml:1: top level: found a list, expected a mapping"),
        WHOLE("a: [1, 2\nb: 3\n", "t.yaml:2: column 2: not YAML: "),
        WHOLE("a:\n\tb: 1\n",
              "t.yaml:2: column 1: not YAML: found character that cannot start any token while "
              "scanning for the next token; YAML indents by blanks, found a tab"),
        WHOLE("model:\n  layers: 2\n    hidden: 64\n",
              "t.yaml:3: column 11: not YAML: mapping values are not allowed in this context; "
              "expected this line to begin in the column of the key above"),
        WHOLE("run:\n  dir: \"\xff\"\n",
              "t.yaml:2: column 9: not YAML: invalid leading UTF-8 octet"),
        WHOLE("run:\n  dir: \x01\n",
              "t.yaml:2: column 8: not YAML: control characters are not allowed"),
        LINE("---\nrun: {steps: 1}\n", "t.yaml:12: found a second document, expected one"),
        LINE("run: &x {steps: 1}\n", "t.yaml:12: found an anchor or alias"),
        LINE("run: {dir: *x}\n", "t.yaml:12: found an anchor or alias"),
        LINE("run: {steps: !!int 3}\n", "t.yaml:12: found a tag"),
        /* overrides */
        OVERRIDE("model.layrs=3",
                 "override 'model.layrs=3': unknown key 'model.layrs', did you mean model.layers?"),
        OVERRIDE("model.layers=no",
                 "override 'model.layers=no': model.layers: found 'no', expected an integer"),
        OVERRIDE("model.layers", "override 'model.layers': expected section.key=value"),
        OVERRIDE("=3", "override '=3': expected section.key=value"),
        OVERRIDE("model=3", "override 'model=3': model is a section, expected one of its keys"),
        OVERRIDE("run.dir=\"a", "override 'run.dir=\"a': not YAML: "),
        OVERRIDE("run.dir=\xff", "override 'run.dir=?': not YAML: "),
        OVERRIDE("run.steps=1\n--- 2", "found a line break, expected a value on one line"),
        OVERRIDE("run.dir=a\nb", "found a line break, expected a value on one line"),
        OVERRIDE("run.dir=exp #3", "override 'run.dir=exp #3': YAML would ignore '#3'; if it"),
        OVERRIDE("run.dir=\xc3\xa9 #\xc3\xbc", "YAML would ignore '#\xc3\xbc'"),
        OVERRIDE("run.dir=#3", "YAML would ignore '#3'"),
        OVERRIDE("data.train=set #1.bin", "YAML would ignore '#1.bin'"),
        OVERRIDE("data.train=[a, b] # c", "YAML would ignore '# c'"),
        OVERRIDE("data.val=# none", "YAML would ignore '# none'"),
        OVERRIDE("run.steps=5 #", "YAML would ignore '#'"),
        OVERRIDE("run.dir=--- a", "YAML would ignore '--- a'"),
        {LEAST "run: {steps: x}\n", "run.steps=5", "t.yaml:12: run.steps: found 'x'"},
        /* missing */
        WHOLE("run: {steps: 1}\n", "t.yaml: data.train: missing, expected a path"),
        WHOLE("run: {steps: 1}\n",
              "t.yaml: model.layers: missing, expected an integer from 1 to 1024"),
        /* keys against each other */
        OVERRIDE("model.kv_heads=3",
                 "model.kv_heads: found 3, expected a divisor of model.heads 4"),
        OVERRIDE("model.hidden=66", "model.hidden: found 66, expected a multiple of model.heads 4"),
        OVERRIDE("model.hidden=68", "hidden 68 / heads 4 = 17; expected an even width"),
        OVERRIDE("model.head_dim=15", "model.head_dim: found 15, expected an even number"),
        LINE("  eod: 256\n",
             "t.yaml:12: data.eod: found 256, expected an id below model.vocab 256"),
        OVERRIDE("data.mask=document", "data.mask: found document without data.eod"),
        OVERRIDE("data.reset_positions=true", "data.reset_positions: found true without data.eod"),
        OVERRIDE("data.eod_mask_loss=true", "data.eod_mask_loss: found true without data.eod"),
        OVERRIDE("data.split=0,1,1", "data.split: found '0,1,1', expected shares for training"),
        OVERRIDE("data.split=1,2,3,4", "expected shares for training"),
        OVERRIDE("data.split=1,2,", "expected shares for training"),
        OVERRIDE("data.split=1;2", "expected shares for training"),
        LINE("  split: 9,1,0\n  val: b\n", "t.yaml:12: data.split: found '9,1,0' beside data.val"),
        LINE("run: {steps: 5}\nbatch: {global: 9, micro: 2}\n",
             "t.yaml:13: batch.micro: found 2, expected a divisor of batch.global 9"),
        {LEAST "batch: {global: 10000000}\n", "run.steps=1000000000000",
         "override 'run.steps=1000000000000': run.steps: found 1000000000000 x batch.global "
         "10000000 = 1e+19 sequences, expected at most 9007199254740991"},
        {LEAST "  order: megatron\nrun: {eval_every: 1}\n", "run.eval_sequences=0",
         "run.eval_sequences: found 0 with data.order megatron, expected a number"},
        {LEAST "run: {steps: 1000000, eval_every: 1}\n", "run.eval_sequences=1000000000000",
         "run.eval_sequences: found 1000000000000 in each of 1000001 evaluations = 1e+18"},
        {LEAST "batch: {global: 8, micro: 8}\n", "model.seq_len=536870912",
         "batch.micro: found 8 x model.seq_len 536870912 = 4294967296 tokens"},
        {LEAST "parallel: {cp: 2}\n", "parallel.backend=none",
         "override 'parallel.backend=none': parallel.backend: found none with parallel.cp 2"},
        LINE("optim: {lr: 1e-3, min_lr: 2e-3}\n",
             "optim.min_lr: found 0.002, expected at most optim.lr 0.001"),
        {LEAST "run: {steps: 5}\n", "optim.warmup_steps=6",
         "optim.warmup_steps: found 6, expected at most the 5 steps"},
        {LEAST "run: {steps: 50}\noptim: {schedule: wsd, decay_steps: 41, warmup_steps: 10}\n",
         NULL, "found 10 and a final decay of 41 steps, expected together at most run.steps 50"},
        {LEAST "data.window: 4\n", "data.mask=full",
         "data.window: found 4 with data.mask full, expected 0"},
        {LEAST "data.window: 4\ndata.prefix: 3\n", "data.mask=prefix_lm",
         "data.window: found 4 with data.mask prefix_lm, expected 0"},
        OVERRIDE("data.prefix=3", "data.prefix: found 3 with data.mask causal, expected 0"),
        OVERRIDE("data.mask=prefix_lm",
                 "data.prefix: found 0 with data.mask prefix_lm, expected 1 to model.seq_len 32"),
        {LEAST "data.prefix: 33\n", "data.mask=prefix_lm",
         "t.yaml:12: data.prefix: found 33 with data.mask prefix_lm, expected 1 to"},
        OVERRIDE("data.mask=slices",
                 "data.mask_file: found none with data.mask slices, expected the"),
        OVERRIDE("data.mask_file=a",
                 "data.mask_file: found \"a\" with data.mask causal, expected none, or another"),
        LINE("model.rope_scaling: {factor: 8, low: 4, high: 1}\n",
             "model.rope_scaling.low: found 4, expected less than model.rope_scaling.high 1"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Config c;
        Status st = parse_with(&c, cases[i].text, (char *)cases[i].override);
        if (st != ERR_USER || strstr(status_message(), cases[i].expected) == NULL)
            fail_msg("case %zu: override \"%s\", status %d, expected \"%s\", found \"%s\"", i,
                     cases[i].override != NULL ? cases[i].override : "", st, cases[i].expected,
                     status_message());
        status_clear();
        config_free(&c);
    }
}

/* Exactly the problems there are: nothing hidden by another one, nothing said twice. */
static void all_problems_are_listed_at_once(void **state) {
    (void)state;
    Config c;
    char *overrides[] = {"model.ffn=0", "run.sead=1"};
    const char *text = "model:\n"
                       "  layers: two\n"
                       "  hidden: 64\n"
                       "  heads: 0\n" /* bad, so that heads % kv_heads is not looked at */
                       "  kv_heads: 3\n"
                       "  vocab: 100\n"
                       "data:\n"
                       "  train: a\n"
                       "  eod: 100\n"
                       "  trian: b\n";
    assert_int_equal(config_parse(&c, "t.yaml", text, strlen(text), 2, overrides), ERR_USER);
    assert_string_equal(
        status_message(),
        "7 problems:\n"
        "t.yaml:2: model.layers: found 'two', expected an integer from 1 to 1024\n"
        "t.yaml:4: model.heads: found '0', expected an integer from 1 to 1024\n"
        "t.yaml:10: unknown key 'data.trian', did you mean data.train?\n"
        "override 'model.ffn=0': model.ffn: found '0', expected an integer from 1 to 1048576\n"
        "override 'run.sead=1': unknown key 'run.sead', did you mean run.seed?\n"
        "t.yaml: model.seq_len: missing, expected an integer from 1 to 536870912\n"
        "t.yaml:9: data.eod: found 100, expected an id below model.vocab 100");
    status_clear();
    config_free(&c);
}

static void endless_problems_are_cut_short(void **state) {
    (void)state;
    Config c;
    StrBuf text = {0};
    for (int i = 0; i < 1000; i++) strbuf_printf(&text, "nothing%d: 1\n", i);
    assert_status_fails(config_parse(&c, "t", text.text, text.len, 0, NULL), ERR_USER,
                        "1008 problems, of which the first 40:\nt:1: unknown key 'nothing0'");
    config_free(&c);
    strbuf_free(&text);
}

static void deep_nesting_and_huge_files_are_refused(void **state) {
    (void)state;
    static const char *const nested[] = {"[", "{a: [", "{? ", "- ", "? ", "[\n", "{a: {\n", "-\t"};
    Config c;
    StrBuf text = {0};
    for (size_t i = 0; i < sizeof nested / sizeof *nested; i++) {
        strbuf_printf(&text, "%s", i < 3 ? "run: {steps: " : "");
        while (text.len < (1 << 20) - 8) strbuf_printf(&text, "%s", nested[i]);
        assert_int_equal(parse(&c, text.text), ERR_USER);
        if (nested[i][1] != '\t') /* not YAML */
            assert_non_null(strstr(status_message(), "17 deep, expected at most 16"));
        status_clear();
        config_free(&c);
        strbuf_free(&text);
    }
    while (text.len <= 1 << 20) strbuf_printf(&text, "# filling ###################\n");
    assert_status_fails(parse(&c, text.text), ERR_USER, "t.yaml: found more than 1048576 bytes");
    config_free(&c);
    strbuf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mistake_is_named),
        cmocka_unit_test(all_problems_are_listed_at_once),
        cmocka_unit_test(endless_problems_are_cut_short),
        cmocka_unit_test(deep_nesting_and_huge_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
