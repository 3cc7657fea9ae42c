"""Starts peers in their hosts and watches them: this process, processes, Ray actors."""
