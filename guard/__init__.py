"""What keeps NNI 3.0's defects away from users; experiment.py is its command line.

before the start    experiment_file (read, overridden), moved (names of earlier versions), preflight (the list of
                    checks): machine_check, search_space, algorithms, trial_check
the start           launch (nnictl, one at a time), web_server (its port), loopback.cjs (on this machine only)
while it runs       registry (which experiments there are), processes (never by a bare pid), watchdog (the true
                    reason of a failure), progress (one line), tuners (TPE that survives several trials at once)
afterwards          database, logs (what NNI has written down), trials (what each truly did), results (all of them),
                    results_view (table, CSV, best.json), lost_trials (repeated in a resume)
"""
