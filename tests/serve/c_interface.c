/* A C program that scores a model file: what an embedder writes. The file and its first golden row come from
 * write_model_file.cpp; the program fails when a call does not do what afm_serve.h says. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libafm/serve/afm_serve.h"

static int failures = 0;

static void check(int holds, const char* what) {
  if (!holds) fprintf(stderr, "FAILED: %s (%s)\n", what, afm_serve_last_error());
  failures += !holds;
}

int main(int argc, char** argv) {
  const int32_t ids[2][5] = {{0, 0, -1, -1, 0}, {6, 4, 2, -1, 3}};
  const float dense[2][2] = {{0.0F, 0.0F}, {0.5F, -1.5F}};
  const int32_t items[2] = {0, 3};
  const int64_t user_fields[4] = {0, 1, 2, 4};
  float logits[2] = {0}, probabilities[2] = {0}, candidates_logits[2] = {0};
  if (argc != 2) return 2;

  check(strlen(afm_serve_last_error()) == 0, "no error before the first");
  check(afm_serve_open("/no/such/file") == NULL, "a file that is not there");
  check(strstr(afm_serve_last_error(), "/no/such/file") != NULL, "the error names it");
  check(afm_serve_slot_count(NULL) == -1, "a null scorer");

  afm_scorer* scorer = afm_serve_open(argv[1]);
  check(scorer != NULL, "open");
  check(afm_serve_slot_count(scorer) == 5 && afm_serve_dense_count(scorer) == 2, "counts");
  check(afm_serve_golden_rows(scorer) == 4, "golden rows");
  check(afm_serve_score(scorer, &ids[0][0], &dense[0][0], 2, logits) == 0, "score");
  check(afm_serve_probabilities(scorer, &ids[0][0], &dense[0][0], 2, probabilities) == 0, "probabilities");
  check(fabs(probabilities[1] - 1 / (1 + exp(-logits[1]))) < 1e-6, "they are of the logits");
  const int32_t wrong[5] = {7, 0, 0, 0, 0};
  check(afm_serve_score(scorer, wrong, &dense[0][0], 1, logits + 1) == -1, "an id out of range");
  check(strcmp(afm_serve_last_error(), "field 'user' has id 7, its ids are 0 to 6") == 0, "its sentence");

  check(afm_serve_score(scorer, &ids[1][0], &dense[1][0], 1, logits + 1) == 0, "one row");
  afm_candidates* candidates = afm_serve_candidates(scorer, user_fields, 4);
  check(candidates != NULL, "candidates");
  afm_serve_close(scorer);
  check(afm_serve_score_candidates(candidates, &ids[1][0], &dense[1][0], items, NULL, 2, candidates_logits) == 0,
        "score candidates");
  check(fabs(candidates_logits[1] - logits[1]) < 1e-5, "the same logit");
  check(fabs(candidates_logits[0] - logits[1]) > 1e-4, "another for another item");
  afm_serve_close_candidates(candidates);
  afm_serve_close(NULL);
  afm_serve_close_candidates(NULL);
  return failures == 0 ? 0 : 1;
}
