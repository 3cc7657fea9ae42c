"""Where peers live, and who starts and watches them: this process, processes, Ray actors."""
