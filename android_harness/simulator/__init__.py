"""A simulated Android device: the real adbd in its own root and namespaces, with substitutes for the rest.

Nothing timed on one is a measurement: it has the property `ro.export_mobile.simulated=1` and the file
/sim/SIMULATED. It needs Linux and root. The parts, in the order in which they act:

base.py    makes the Debian root that all devices share
soc.py     contains the files that make it look like a Snapdragon 865
boot.sh    builds a device's root inside new namespaces, which end with their process 1
keeper.py  runs once per device: starts it, ends it and makes it misbehave
link.py    relays between the adb server and the device's adbd
faults.py  changes processes, files and readings inside the device
device.py  defines `Simulated`: start, misbehave, stop, list
server.py  runs a private adb server
"""
