/* keys.h: private to config*.c: the table of keys, one value's text form, and what reading and
 * checking share: the reader and its list of problems. */
#ifndef CRIA_CONFIG_KEYS_H
#define CRIA_CONFIG_KEYS_H

#include "config/config.h"

typedef enum {
    KEY_INT,
    KEY_INT64,
    KEY_DOUBLE,
    KEY_BOOL,
    KEY_STRING,
    KEY_ENUM,
    KEY_SOURCES,
    KEY_STAGES
} KeyType;

/* What another value of a key changes. */
typedef enum {
    AFFECTS_NOTHING,         /* results stay the same: how, where and when they are made */
    AFFECTS_INITIAL_WEIGHTS, /* and nothing in a run that goes on from a checkpoint */
    AFFECTS_MODEL,
    AFFECTS_BATCHES,
    AFFECTS_COURSE,
    AFFECTS_LATER_STEPS /* the course, but of no step that both runs have */
} KeyEffect;

typedef struct ConfigReader ConfigReader;
typedef struct ConfigKey ConfigKey;
/* What a valid value of key k demands of other keys; may resolve what is 0 = derived. */
typedef void ConfigCheck(ConfigReader *r, const ConfigKey *k);

struct ConfigKey {
    const char *name; /* in full: "model.rope_scaling.factor" */
    KeyType type;
    size_t offset;             /* of the field in Config */
    size_t count_offset;       /* KEY_SOURCES, KEY_STAGES: of the int that counts them */
    const char *default_value; /* the default, as one would write it; NULL: the key is required */
    double min, max;           /* numbers: inclusive bounds; strings: of the length in bytes */
    /* enum: a name per value, then NULL; int: the name of -1, then NULL */
    const char *const *names;
    const char *unit, *help;
    KeyEffect affects_result;
    ConfigCheck *check; /* NULL: none */
    unsigned masks;     /* bits 1 << MaskKind: the values of data.mask that it goes with; 0: all */
    bool sets;          /* KEY_SOURCES: sets of files with names are allowed, too */
    bool in_stages;     /* a stage may set it */
    bool late; /* younger than the hashes in checkpoints: hashed only where not the default */
};

enum { CONFIG_KEYS_MAX = 128, CONFIG_LIST_MAX = 40 };
/* The last integer that a double, and so any JSON reader, holds exactly. */
#define CONFIG_EXACT_MAX 9007199254740991.0

extern const ConfigKey config_keys[];
extern const int config_n_keys; /* <= CONFIG_KEYS_MAX */

/* NULL when there is no such key. */
const ConfigKey *config_key_find(const char *name);
static inline void *config_key_field(const ConfigKey *k, const Config *c) {
    return (char *)c + k->offset;
}
static inline int *config_key_count(const ConfigKey *k, const Config *c) {
    return (int *)((char *)c + k->count_offset);
}
/* Index of the first key below this name; -1 when it is not a section. */
int config_section_find(const char *name);
/* Appends the key or section that an unknown name probably meant; false when none is near. */
bool config_key_nearest(const char *name, StrBuf *out);
/* For the name of a setting that other trainers have and cria has not: what there is instead; NULL:
 * it is not such a name. */
const char *config_key_elsewhere(const char *name);
/* "an integer from 1 to 64", "one of none, ring, magi": for messages and help. */
void config_key_expects(const ConfigKey *k, StrBuf *out);

/* Sets the field from text (any type but KEY_SOURCES, KEY_STAGES); false when it is not what the
 * key expects. A quoted scalar is a string and never a number or a bool. */
bool config_value_set(const ConfigKey *k, Config *c, const char *text, size_t len, bool quoted);
/* Frees what the field owns and leaves it empty. */
void config_value_free(const ConfigKey *k, Config *c);
/* Copies the field of *from; what *to had is freed. Any type but KEY_STAGES. */
void config_value_copy(const ConfigKey *k, Config *to, const Config *from);
/* The value as YAML; with json as JSON, which differs only in quotes round names. */
void config_value_print(const ConfigKey *k, const Config *c, bool json, StrBuf *out);
/* Has a number or text its default? */
bool config_value_is_default(const ConfigKey *k, const Config *c);
/* A finite decimal number. */
bool config_number_parse(const char *text, size_t len, double *out);
/* Appends text in quotes for a message: shortened, on one line. */
void config_quote(StrBuf *out, const char *text, size_t len);

typedef struct {
    int line;             /* in the file; 0: not there */
    const char *override; /* or the override that set it */
    bool valid;           /* has a value that the table allows */
} KeyOrigin;

struct ConfigReader {
    Config *config;
    const char *name;                  /* of the file */
    const char *stage;                 /* whose keys these are, for messages; NULL: the file's */
    KeyOrigin origin[CONFIG_KEYS_MAX]; /* parallel to config_keys */
    int section_line[CONFIG_KEYS_MAX]; /* at a section's first key: the line of its header */
    StrBuf problems;
    int n_problems;
};

/* Adds a line to the problems. config_problem_at starts it with where the key was set. */
void config_problem(ConfigReader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void config_problem_at(ConfigReader *r, const ConfigKey *k, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Likewise with a place in the file, or in an override where that is not NULL; line 0: no line. */
void config_problem_in(ConfigReader *r, const char *override, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Adds a line to r->config->notes, likewise. */
void config_note_at(ConfigReader *r, const ConfigKey *k, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* OK, or ERR_USER with all problems; frees the list. */
Status config_problems_status(ConfigReader *r);

/* Reads a YAML text into r->config; false when it could not be read to its end. */
bool config_read_file(ConfigReader *r, const char *text, size_t len);
/* Reads "section.key=value"; the value is YAML, so that lists and quotes work as in the file. */
void config_read_override(ConfigReader *r, const char *override);

/* Copies all but stages and notes into *to, which is empty. */
void config_copy(Config *to, const Config *from);
/* Fills r->config->timeline: makes whole configurations of stages and batch.ramp, and checks each
 * like one. r->config is checked; `given` is the same with what is 0 = derived still 0, and becomes
 * the last stage's. */
void config_build_stages(ConfigReader *r, Config *given);
void config_free_stages(Config *c);
/* "stages[1]"; the caller's to free. */
char *config_item_name(int i);

/* Calls the checks of all valid keys, in the table's order: they check keys against each other and
 * resolve what is 0 = derived. A check that needs a key that is not valid is skipped: the cause has
 * been reported already. */
void config_check_keys(ConfigReader *r);
ConfigCheck config_check_seed, config_check_steps, config_check_eval_sequences,
    config_check_sample_every, config_check_hidden, config_check_kv_heads, config_check_head_dim,
    config_check_rope_scaling, config_check_train, config_check_weights, config_check_split,
    config_check_order, config_check_eod, config_check_eod_use, config_check_eod_mask_loss,
    config_check_mask, config_check_micro, config_check_backend, config_check_min_lr,
    config_check_schedule, config_check_precision, config_check_ramp;

#endif
