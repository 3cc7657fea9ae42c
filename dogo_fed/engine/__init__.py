"""The DoGo step, and the loop around it. No network here; hosts give the engine an `Exchange`."""
