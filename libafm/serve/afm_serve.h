#ifndef AFM_SERVE_H
#define AFM_SERVE_H

/* The scorer of libafm in C: libafm/serve/scorer.h says what each call does.
 *
 *   afm_scorer* scorer = afm_serve_open("clicks.safetensors");
 *   if (scorer == NULL || afm_serve_score(scorer, ids, dense, rows, logits) != 0) puts(afm_serve_last_error());
 *   afm_serve_close(scorer);
 *
 * Calls that return int give 0, or -1 after an error, which afm_serve_last_error() describes. A scorer may be used by
 * any number of threads at once, but not while it is closed. A null pointer for a scorer is an error, never a crash;
 * arrays must have the sizes that are stated. */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define AFM_SERVE_API __attribute__((visibility("default")))
#else
#define AFM_SERVE_API
#endif

typedef struct afm_scorer afm_scorer;

/* Opens a model file and checks it; NULL after an error. */
AFM_SERVE_API afm_scorer* afm_serve_open(const char* path);
/* NULL is allowed. */
AFM_SERVE_API void afm_serve_close(afm_scorer* scorer);

/* The calling thread's last error, one sentence; valid until its next call that fails. Empty before the first. */
AFM_SERVE_API const char* afm_serve_last_error(void);

/* S id slots and Q dense features of a row, and the golden rows that were checked; -1 after an error. */
AFM_SERVE_API int64_t afm_serve_slot_count(const afm_scorer* scorer);
AFM_SERVE_API int64_t afm_serve_dense_count(const afm_scorer* scorer);
AFM_SERVE_API int64_t afm_serve_golden_rows(const afm_scorer* scorer);

/* ids [rows, S] and dense [rows, Q] row-major (NULL when Q is 0) -> out [rows]. */
AFM_SERVE_API int afm_serve_score(const afm_scorer* scorer, const int32_t* ids, const float* dense, int64_t rows,
                                  float* logits);
AFM_SERVE_API int afm_serve_probabilities(const afm_scorer* scorer, const int32_t* ids, const float* dense,
                                          int64_t rows, float* out);

/* One row of raw values, a JSON object by field names in UTF-8, -> the probability of a click. The file must be packed;
 * libafm/serve/request.h says what each kind of field makes of a value. */
AFM_SERVE_API int afm_serve_score_json(const afm_scorer* scorer, const char* request, float* probability);

/* Many items for one user. Which fields are the user's is chosen once, by their places in the schema; the scorer may be
 * closed before the candidates are. */
typedef struct afm_candidates afm_candidates;
AFM_SERVE_API afm_candidates* afm_serve_candidates(const afm_scorer* scorer, const int64_t* user_fields, size_t count);
AFM_SERVE_API void afm_serve_close_candidates(afm_candidates* candidates);

/* user_ids [S_u], user_dense [Q_u], item_ids [items, S - S_u], item_dense [items, Q - Q_u] -> logits [items]. */
AFM_SERVE_API int afm_serve_score_candidates(const afm_candidates* candidates, const int32_t* user_ids,
                                             const float* user_dense, const int32_t* item_ids, const float* item_dense,
                                             int64_t items, float* logits);

#ifdef __cplusplus
}
#endif

#endif
