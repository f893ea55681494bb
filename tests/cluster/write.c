/* Stands for an application: writes numbered lines to its output, then ends, or waits for the signal that ends it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void end(int signal) { (void)signal; _exit(0); }

int main(int count, char **words) {
  struct sigaction ends = {.sa_handler = end};
  sigaction(SIGTERM, &ends, NULL);
  if (count < 2) return 2;
  for (int line = 0; line < atoi(words[1]); line++) printf("line %d\n", line);
  fflush(stdout);
  while (count > 2 && strcmp(words[2], "stay") == 0) pause();
  return 0;
}
