/* arguments.h: the settings of `cria bench`: each has a list of values, which key=value[,value ...]
 * replaces. */
#ifndef CRIA_BENCH_ARGUMENTS_H
#define CRIA_BENCH_ARGUMENTS_H

#include "base/base.h"
#include "config/config.h"

typedef enum {
    SETTING_COUNT,  /* 8192 or 8k: a, up to `most`; where `names` has one, that name means -1 */
    SETTING_TOKENS, /* 8k or 4x2k: a sequences of b tokens each */
    SETTING_HEADS,  /* 32/8: a query heads, at most BENCH_HEADS_MAX, and b kv heads */
    SETTING_NAME    /* a is the index into names */
} SettingKind;

typedef struct {
    int64_t a, b;
} SettingValue;

enum { SETTING_VALUES = 16, BENCH_HEADS_MAX = 1024, BENCH_HEAD_DIM_MAX = 1024 };

typedef struct {
    const char *key;
    SettingKind kind;
    const char *gpu, *cpu; /* the values when none are given, by backend; NULL: no values */
    const char *help;
    const char *const *names; /* ends with NULL */
    int64_t most;             /* SETTING_COUNT: the greatest value; 0 = BAND_MAX_TOKENS */
    bool single;              /* takes one value, not a list */
    bool given;               /* on the command line */
    int n;
    SettingValue values[SETTING_VALUES];
} Setting;
#define SETTING(key_, kind_, gpu_, cpu_, help_, names_)                                            \
    ((Setting){.key = key_,                                                                        \
               .kind = SETTING_##kind_,                                                            \
               .gpu = gpu_,                                                                        \
               .cpu = cpu_,                                                                        \
               .help = help_,                                                                      \
               .names = names_})

typedef struct {
    const char *config; /* NULL: not given */
    char **overrides;
    int n_overrides;
    DeviceKind device;
    bool json;
    const char *timeline, *baseline; /* NULL: not given */
} BenchArguments;

/* Takes "key=value" texts apart: settings, which ends with a NULL key, device, and, with `config`,
 * keys of a configuration, which stay in `texts` as a->overrides. ERR_USER with a message that says
 * what would do. Settings that are not given stay empty. */
Status bench_arguments_parse(BenchArguments *a, const char *what, bool config, Setting *settings,
                             int n, char **texts);
/* Gives the others their values. */
void bench_settings_fill(Setting *settings, bool gpu);
/* What the settings are, for --help. */
void bench_settings_print(const Setting *settings, StrBuf *out);

#endif
