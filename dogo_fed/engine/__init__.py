"""The DoGo step, and the loop around it. It knows no network: hosts give it an `Exchange`."""
