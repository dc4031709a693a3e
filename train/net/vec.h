/* train/net/vec.h - what the trainer does row by row: conversions, softmax, RMSNorm, SwiGLU, rotary
 * embedding, each with its derivative beside it.
 *
 * Compiled for several instruction sets, chosen when the program is loaded (target_clones). Typed
 * rows are f32 or bf16 (engine/tensors_work.h).
 *
 * Threads    pure functions.
 */
#ifndef TRAIN_NET_VEC_H
#define TRAIN_NET_VEC_H

#include "engine/tensors_work.h"

void vec_put(enum tensors_type t, void *dst, const float *x, size_t n);
void vec_get(enum tensors_type t, const void *src, float *ret, size_t n);
void vec_add(float *y, const float *x, size_t n);
void vec_add_scaled(float *y, float a, const float *x, size_t n); /* y += a x */
void vec_scale(float *y, float a, size_t n);
float vec_dot(const float *x, const float *y, size_t n);
double vec_sum_squares(const float *x, size_t n);

float vec_max(const float *x, size_t n);
/* x becomes exp(x - shift); their sum. */
float vec_exp(float *x, float shift, size_t n);
/* dp becomes p (dp - d). */
void vec_softmax_back(float *dp, const float *p, float d, size_t n);

/* y = x / rms(x) * w; returns 1 / rms. */
float vec_norm(float *y, const float *x, const float *w, float eps, size_t n);
/* dx += the derivative by x; dy (n) is spoilt. */
void vec_norm_back(float *dx, float *dy, const float *x, const float *w, float r, size_t n);

/* dw += the derivative by w. Before vec_norm_back, which spoils dy. */
void vec_norm_back_weight(float *dw, const float *dy, const float *x, float r, size_t n);

/* y = silu(g) u */
void vec_swiglu(float *y, const float *g, const float *u, size_t n);
/* g and u become the derivatives by them. */
void vec_swiglu_back(float *g, float *u, const float *dy, size_t n);

/* Element i is paired with i + hd / 2; angle (hd): cosines, then sines. back: by the opposite
 * angle. */
void vec_rotate(float *x, const float *angle, uint32_t hd, bool back);

#endif
