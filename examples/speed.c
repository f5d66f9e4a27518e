/* Times a pass forward and back at T = B = 1, float32, of each cell: the cost of a call from C. */
#define _POSIX_C_SOURCE 199309L
#include <bptt/bptt.h>
#include <stdio.h>
#include <time.h>

enum { H = 8, MOST_GATES = 4, CALLS = 20000, ROUNDS = 11 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int measure(const char* name) {
  static float x[H], w[2][MOST_GATES * H * H], b[2][MOST_GATES * H], y[H], c[H], saved[8 * H];
  static float last[2][H], dy[H], dx[H], dw[2][MOST_GATES * H * H], db[2][MOST_GATES * H];
  double best = 1;
  bptt_cell cell = BPTT_CELL_INIT;
  bptt_layer layer = BPTT_LAYER_INIT;
  bptt_record record = BPTT_RECORD_INIT;
  bptt_incoming incoming = BPTT_INCOMING_INIT;
  bptt_gradients gradients = BPTT_GRADIENTS_INIT;
  if (bptt_describe_cell(name, &cell)) return 1;
  layer.cell = name;
  layer.dtype = BPTT_FLOAT32;
  layer.steps = layer.batch = 1;
  layer.inputs = layer.hidden = H;
  layer.x = x;
  layer.w_ih = w[0];
  layer.w_hh = w[1];
  layer.b_ih = b[0];
  layer.b_hh = b[1];
  record.y = y;
  record.c_y = cell.states > 1 ? c : NULL;
  record.saved = cell.saved ? saved : NULL;
  record.last_h = last[0];
  record.last_c = cell.states > 1 ? last[1] : NULL;
  incoming.y = dy;
  gradients.x = dx;
  gradients.w_ih = dw[0];
  gradients.w_hh = dw[1];
  gradients.b_ih = db[0];
  gradients.b_hh = db[1];
  for (int round = 0; round < ROUNDS; ++round) {
    const double began = now();
    double seconds;
    for (int call = 0; call < CALLS; ++call) {
      if (bptt_forward(&layer, &record, NULL) ||
          bptt_backward(&layer, &record, &incoming, &gradients, NULL)) {
        fprintf(stderr, "%s\n", bptt_error_message());
        return 1;
      }
    }
    seconds = (now() - began) / CALLS;
    if (seconds < best) best = seconds;
  }
  printf("%-6s %.2f us forward and back\n", name, 1e6 * best);
  return 0;
}

int main(void) {
  printf("bptt %s, %s\n", bptt_version(), bptt_isa());
  return measure("linear") || measure("tanh") || measure("relu") || measure("lstm") ||
         measure("gru");
}
