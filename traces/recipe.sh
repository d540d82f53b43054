#!/bin/sh
# Makes the traces in this folder again, byte for byte. A test runs these same lines and compares.
set -eu
cd "$(dirname "$0")"

sagescale trace synth --pattern steady --duration-s 3600 --rps 3 --isl lognormal:mean=1200,p99=8000,max=16000 --osl lognormal:mean=210,p99=1000,max=2000 --seed 1 --out steady.csv
sagescale trace synth --pattern ramp --duration-s 3600 --rps 0.5 --end-rps 5.5 --isl lognormal:mean=1200,p99=8000,max=16000 --osl lognormal:mean=210,p99=1000,max=2000 --seed 2 --out ramp.csv
sagescale trace synth --pattern step --duration-s 3600 --rps 1 --end-rps 5 --isl lognormal:mean=1200,p99=8000,max=16000 --osl lognormal:mean=210,p99=1000,max=2000 --seed 3 --out step.csv
sagescale trace synth --pattern diurnal --duration-s 604800 --rps 0.02 --amplitude 0.7 --weekend-factor 0.5 --isl lognormal:mean=1200,p99=8000,max=16000 --osl lognormal:mean=210,p99=1000,max=2000 --seed 4 --out diurnal-week.csv
sagescale trace synth --pattern bursty --duration-s 3600 --rps 3 --cv 4 --family gamma --isl lognormal:mean=1200,p99=8000,max=16000 --osl lognormal:mean=210,p99=1000,max=2000 --correlation 0.3 --seed 5 --out bursty.csv
sagescale trace synth --pattern spikes --duration-s 3600 --rps 1.5 --spike-rps 12 --every-s 600 --spike-s 60 --isl lognormal:mean=1200,p99=8000,max=16000 --osl lognormal:mean=210,p99=1000,max=2000 --seed 6 --out spikes.csv
