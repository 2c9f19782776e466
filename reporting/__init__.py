"""The parts of report.py: findings reads the results; sections says what they mean, with tested, data_section,
experiments and stages for its parts; plots, charts, photographs and their neighbours draw; final_test and heat_maps
compute what that takes; web_page and markdown write it down."""
