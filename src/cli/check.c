/* check.c: `cria check`. */
#include <stdlib.h>
#include <string.h>

#include "base/output.h"
#include "base/text.h"
#include "ckpt/lineage.h"
#include "cli/commands.h"
#include "config/config.h"

/* The model as a section to paste, where the file says what it is of. */
static void describe_model(const Checkpoint *ck, StrBuf *out) {
    const char *text = checkpoint_entry(ck, "cria.config");
    Config config = {0};
    Status st = text != NULL ? config_parse(&config, "", text, strlen(text), 0, NULL) : ERR_USER;
    const Config *c = &config;
    if (st == OK) c = config_of_stage(c, config_stage_at(c, checkpoint_step(ck)));
    if (st == OK) config_print_section(c, "model", out);
    config_free(&config);
    status_ignore(st);
}

static Status check_file(const char *path) {
    Checkpoint *ck;
    CHECK(checkpoint_open(&ck, path));
    Status st = checkpoint_verify(ck);
    StrBuf text = {0};
    checkpoint_describe(ck, &text);
    lineage_describe(checkpoint_entry(ck, LINEAGE_ENTRY), checkpoint_entry(ck, MERGED_ENTRY),
                     &text);
    if (st == OK) describe_model(ck, &text);
    text_make_printable(text.text, true); /* it names the file */
    output_write(OUTPUT_STDOUT, text.text, strlen(text.text));
    strbuf_free(&text);
    checkpoint_close(ck);
    return st;
}

static Status check(const Args *a) {
    char *path;
    CHECK(checkpoint_find(a->paths[0], &path));
    Status st = check_file(path);
    free(path);
    return st;
}

const Command command_check = {.name = "check",
                               .summary = "Verify a checkpoint, print what is inside.",
                               .arguments = "CHECKPOINT|DIR",
                               .details = "Compares every checksum of a checkpoint, or of the "
                                          "newest one of a folder, and prints what is inside.",
                               COMMAND_PATHS(1, 1),
                               .run = check};
