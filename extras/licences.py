"""
Licenses: keep only documents that have one of those that you name.

    python prepare.py --source=MY_CODE --licences=mit,bsd,apache-2.0,unknown

    licence_of({'license': ['MIT', 'BSD']})                 # 'mit, bsd'
    licence_of({'text': 'No license is named.'})            # 'unknown'

A document with several licenses stays if you name all of them. The report lists the licenses of
what was kept. Whether you may use a text is a question for you, not for a program.
"""
NAMES = 'licence', 'license', 'max_stars_repo_licenses'     # of a record; the last is The Stack's


def stage(licences, of_source):
    """Return a stage of prepare.py that notes the license of each document. licences: those to
    keep, such as 'mit,bsd', or '' for all. of_source: {name of a source: what all of it has}, for
    sources whose records name none."""
    wanted = {name.strip() for name in licences.lower().split(',')} - {''}

    def check_licence(document, notes):
        licence = licence_of(document['record'])
        if licence == 'unknown':
            licence = of_source.get(document['source'], licence)
        document['licence'] = licence
        if wanted and not wanted.issuperset(licence.split(', ')):
            return f'licence {licence}'

    return check_licence


def licence_of(record):
    """Return the license that a record names, in lower case, or 'unknown'."""
    value = next((record[name] for name in NAMES if record.get(name) is not None), '')
    if isinstance(value, list):
        value = ', '.join(map(str, value))
    return value.lower() if isinstance(value, str) and value else 'unknown'
