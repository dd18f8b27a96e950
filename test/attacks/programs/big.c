/* A program of 150 MiB: its file lies in the workspace, and what lies there counts as memory. */
char filled[150l * 1024 * 1024] = {1};
int main(void) { return filled[0] - 1; }
