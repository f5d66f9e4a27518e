/* bptt: forward pass and back-propagation through time of recurrent layers, on the CPU.
 *
 * C99. All arrays are dense and row-major, of float32 or float64, and belong to the caller; T, B, I
 * and H are the steps, the rows of the batch, and the sizes of x and of the state, and G is the
 * number of gates of the cell. Nothing is written where an error is returned before work begins.
 *
 * Every struct begins with its size, which its `..._INIT` sets: later versions append members, and
 * what an older caller does not have is zero; what an older library does not have is an error, if
 * it is not zero. No C++ exception leaves a function. Any thread may
 * call; one call at a time has the process's team of threads, others run on their own. The library
 * exports, beside the functions below, the variable `bptt_team_1`, by which its copies in a process
 * (those of the Python package too) find that team. It is not for programs.
 */
#ifndef BPTT_BPTT_H_
#define BPTT_BPTT_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BPTT_VERSION_MAJOR 0
#define BPTT_VERSION_MINOR 2
#define BPTT_VERSION_PATCH 0

typedef enum bptt_status {
  BPTT_OK = 0,
  BPTT_INVALID_ARGUMENT = 1, /* nothing was written */
  BPTT_OUT_OF_MEMORY = 2,    /* outputs are undefined */
  BPTT_INTERRUPTED = 3,      /* as the callback asked; outputs are undefined */
  BPTT_INTERNAL_ERROR = 4
} bptt_status;

typedef enum bptt_dtype { BPTT_FLOAT32 = 0, BPTT_FLOAT64 = 1 } bptt_dtype;

/* What a cell is made of. */
typedef struct bptt_cell {
  size_t struct_size;
  int32_t gates;  /* G: rows of the weights over H; gates in the order of PyTorch */
  int32_t states; /* 1: h; 2: h and c */
  int32_t saved;  /* values a unit and step in `saved` */
} bptt_cell;
#define BPTT_CELL_INIT {sizeof(bptt_cell), 0, 0, 0}

/* A layer, and what runs through it. */
typedef struct bptt_layer {
  size_t struct_size;
  const char* cell;                     /* "linear", "tanh", "relu", "lstm" or "gru" */
  int32_t dtype;                        /* a bptt_dtype */
  int32_t reverse;                      /* not 0: from each sequence's last step to its first */
  int64_t steps, batch, inputs, hidden; /* T, B, I, H */
  const void* x;                        /* (T, B, I) */
  const void* h;                        /* (B, H) the initial state; NULL: zeros */
  const void* c;                        /* (B, H) the same of a cell with c */
  const void* w_ih;                     /* (G H, I) */
  const void* w_hh;                     /* (G H, H) */
  const void* b_ih;                     /* (G H) or NULL */
  const void* b_hh;                     /* (G H) or NULL */
  const int32_t* lengths; /* (B) steps of each sequence, from 0 to T; NULL: all have T */
  const uint8_t* reset;   /* (T, B) not 0 where the state before a step is zero; or NULL */
} bptt_layer;
#define BPTT_LAYER_INIT {sizeof(bptt_layer), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* What a pass leaves. The way back reads y, c_y and saved. */
typedef struct bptt_record {
  size_t struct_size;
  void* y;      /* (T, B, H) the state after each step; zeros beyond the end of a sequence */
  void* c_y;    /* (T, B, H) c after each step, of a cell with c; NULL: nothing goes back */
  void* saved;  /* (T, B, saved, H), or NULL: computed again on the way back */
  void* last_h; /* (B, H) the state after each sequence's own last step; or NULL */
  void* last_c; /* (B, H) the same of a cell with c; or NULL */
} bptt_record;
#define BPTT_RECORD_INIT {sizeof(bptt_record), 0, 0, 0, 0, 0}

/* The gradients of the loss that come in. NULL: zeros. */
typedef struct bptt_incoming {
  size_t struct_size;
  const void* y;      /* (T, B, H) */
  const void* last_h; /* (B, H) */
  const void* last_c; /* (B, H) */
} bptt_incoming;
#define BPTT_INCOMING_INIT {sizeof(bptt_incoming), 0, 0, 0}

/* Where gradients go, of the shapes of what they belong to. NULL: not computed. */
typedef struct bptt_gradients {
  size_t struct_size;
  void* x;
  void* h;
  void* c;
  void* w_ih;
  void* w_hh;
  void* b_ih;
  void* b_hh;
  int32_t accumulate; /* not 0: added to what the arrays hold; not of sequences with lengths,
                         resets or in reverse, if x, h or c are asked for */
} bptt_gradients;
#define BPTT_GRADIENTS_INIT {sizeof(bptt_gradients), 0, 0, 0, 0, 0, 0, 0, 0}

/* How it is computed. A NULL pointer to it is the same as BPTT_OPTIONS_INIT. */
typedef struct bptt_options {
  size_t struct_size;
  int32_t threads;         /* most threads of the call, by which no bit changes; 0: one per CPU */
  int32_t keep_subnormals; /* not 0: subnormal numbers are not flushed to zero, which is slower */
  int (*interrupt)(void* context); /* or NULL; asked by the calling thread, every 50 ms at most:
                                      not 0 ends the call. It must not throw. */
  void* context;
} bptt_options;
#define BPTT_OPTIONS_INIT {sizeof(bptt_options), 0, 0, 0, 0}

#if defined(_WIN32)
#define BPTT_API
#else
#define BPTT_API __attribute__((visibility("default")))
#endif

/* Each returns a bptt_status. */
BPTT_API int bptt_forward(const bptt_layer* layer, const bptt_record* record,
                          const bptt_options* options);
BPTT_API int bptt_backward(const bptt_layer* layer, const bptt_record* record,
                           const bptt_incoming* incoming, const bptt_gradients* gradients,
                           const bptt_options* options);
BPTT_API int bptt_describe_cell(const char* name, bptt_cell* cell);

/* What was wrong with the last call of this thread that returned an error. */
BPTT_API const char* bptt_error_message(void);

BPTT_API const char* bptt_version(void);
/* The instruction set in use; NULL if BPTT_ISA names none that there is. */
BPTT_API const char* bptt_isa(void);

#ifdef __cplusplus
}
#endif

#endif
