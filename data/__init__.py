"""What training takes and what evaluation asks.

    common.py       one-line errors, signals, the cache's place, the device, progress bars
    batches.py      which images and which captions make a batch, and which pairs are masked
    captions.py     the distinct captions of a data set, and captions as token ids
    vectors.py      vectors that a frozen tower made once: of captions, of images, of others
    benchmarks.py   what is asked of a trained run: held-out images, SugarCrepe, Winoground, ...
    processes.py    several processes that train one model (torchrun)
    train_log.py    what a run says of itself while it trains: its log, its validation curve
    report.py       the table of scores and report.png; page.py draws
    sweep.py        many runs, and which setting is best by validation images; above train.py
    search.py       search a folder by words, name one image
    images/         what users bring: csv, json, tar shards, folders -> pixels
    world/          what is drawn here: built-in scenes, emoji, icons, a test like Winoground
    files/          model files: language models, image towers, trained runs

A first reading of the project needs batches.py and vectors.py only.
"""
