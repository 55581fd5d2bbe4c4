/* schedule.h: the learning rate as a function of the update number. */
#ifndef CRIA_OPTIM_SCHEDULE_H
#define CRIA_OPTIM_SCHEDULE_H

#include "config/config.h"

/* Learning rate of update t (t = 1 is the first) in a run of `steps` updates. With schedule_start 0
 * it is what follows for t - 1: Megatron-LM's OptimizerParamScheduler counts the updates done.
 *   warmup:   lr * t / warmup_steps for t <= warmup_steps, whatever the schedule
 *   constant: lr
 *   linear:   down to min_lr at t = decay_steps, min_lr afterwards
 *   cosine:   min_lr + (lr - min_lr) * (1 + cos(pi * x)) / 2, x = (t - warmup) / (decay - warmup)
 *   wsd:      lr, then linearly to min_lr over the last decay_steps updates of the run
 * decay_steps = 0 stands for `steps` (linear, cosine) and for a tenth of them (wsd). */
double schedule_lr(const OptimConfig *o, int64_t steps, int64_t t);

#endif
