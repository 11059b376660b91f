"""The text that the tiny decoder of examples/models/tiny-llama learns from.

Purpose: an endless stream of short documents about a factory and its contracts, half of them in
    English and half in Chinese, drawn from a small grammar that was written for this repository. A
    document keeps to what it began with (the machine, the time, the party), so that a decoder of a
    million weights has something to learn besides single words.

Run:     python3 tests/golden/tiny_corpus.py [COUNT]     prints COUNT documents (20).
    tiny_llama.py imports documents(). The standard library is enough.

The seed decides everything: documents(seed) yields the same texts on every machine with Python 3.
"""

import random
import sys

# (English, Chinese) of the same thing.
MACHINES = [
    ("press", "冲压机"), ("lathe", "车床"), ("furnace", "热处理炉"), ("conveyor", "输送带"),
    ("robot", "机器人"), ("compressor", "空压机"), ("milling machine", "铣床"), ("welder", "焊机"),
]
LINES = [("one", "一"), ("two", "二"), ("three", "三"), ("four", "四"), ("five", "五")]
PEOPLE = [
    ("the mechanic", "机修工"), ("the electrician", "电工"), ("the foreman", "班长"),
    ("the operator", "操作员"), ("the inspector", "质检员"),
]

# What went wrong, what had caused it, what was done: in both languages.
FAULTS = [
    (("the oil temperature passed its limit", "the cooler was full of dust", "cleaned the cooler"),
     ("油温超过了上限", "冷却器积满了灰尘", "清洗了冷却器")),
    (("the motor drew too much current", "a bearing was dry", "replaced the bearing"),
     ("电机电流过大", "轴承缺少润滑", "更换了轴承")),
    (("the door switch was open", "a cable was loose", "tightened the cable"),
     ("安全门开关断开", "一根电缆松动", "拧紧了电缆")),
    (("the air pressure fell", "a hose was leaking", "changed the hose"),
     ("气压下降", "一根软管漏气", "更换了软管")),
    (("the tool was worn", "it had run for two hundred hours", "mounted a new tool"),
     ("刀具磨损", "刀具已经使用了二百小时", "安装了新的刀具")),
    (("the gearbox made a loud noise", "there was too little oil", "filled up the oil"),
     ("齿轮箱发出异响", "润滑油不足", "补充了润滑油")),
    (("the sensor gave no signal", "the lens was dirty", "wiped the lens"),
     ("传感器没有信号", "镜头脏了", "擦净了镜头")),
]

# A defect of a board, its likely cause, the remedy.
DEFECTS = [
    (("a solder bridge between two pins", "there was too much paste", "cleaned the stencil"),
     ("两个引脚之间的短路", "锡膏过多", "清洗了钢网")),
    (("a broken trace near the connector", "the etching bath was too strong", "changed the bath"),
     ("接插件附近的一处断线", "蚀刻液浓度过高", "更换了蚀刻液")),
    (("a missing part at the corner", "the nozzle was blocked", "replaced the nozzle"),
     ("板角的一处缺件", "吸嘴堵塞", "更换了吸嘴")),
    (("a cold joint under the chip", "the oven was not hot enough", "raised the oven temperature"),
     ("芯片下方的一处虚焊", "回流炉温度不足", "提高了炉温")),
    (("a scratch across the mask", "the rail was rough", "polished the rail"),
     ("阻焊层上的一道划痕", "导轨粗糙", "打磨了导轨")),
]
DAYS = [("7", "七"), ("10", "十"), ("15", "十五"), ("30", "三十"), ("60", "六十"), ("90", "九十")]
PARTIES = [(("Buyer", "Seller"), ("买方", "卖方")), (("Customer", "Supplier"), ("甲方", "乙方"))]
CITIES = [("Shanghai", "上海"), ("Berlin", "柏林"), ("Chicago", "芝加哥"), ("Singapore", "新加坡")]


def clock(rng):
    """A time of day and one up to an hour later."""
    start = rng.randrange(6 * 12, 21 * 12) * 5
    end = start + rng.randrange(2, 12) * 5
    return [f"{minute // 60}:{minute % 60:02d}" for minute in (start, end)]


def shift_english(rng):
    machine, line = rng.choice(MACHINES)[0], rng.choice(LINES)[0]
    person, ((fault, cause, action), _) = rng.choice(PEOPLE)[0], rng.choice(FAULTS)
    start, end = clock(rng)
    text = rng.choice([
        f"The {machine} on line {line} stopped at {start} because {fault}.",
        f"The {machine} on line {line} stopped because {fault}. It was {start}.",
        f"At {start} the {machine} on line {line} stopped because {fault}.",
    ])
    text += rng.choice([
        f" {person.capitalize()} opened the {machine}, found that {cause} and {action}.",
        f" The reason was that {cause}, so {person} {action}.",
    ])
    return text + rng.choice([
        f" The {machine} ran again at {end}.",
        f" At {end} the {machine} ran again, and nothing else was wrong.",
        f" The {machine} was back at work at {end}, and line {line} made up the lost time.",
    ])


def shift_chinese(rng):
    machine, line = rng.choice(MACHINES)[1], rng.choice(LINES)[1]
    person, (_, (fault, cause, action)) = rng.choice(PEOPLE)[1], rng.choice(FAULTS)
    start, end = clock(rng)
    text = rng.choice([
        f"{line}号线的{machine}因为{fault}在{start}停机。",
        f"{start}，{line}号线的{machine}因为{fault}而停机。",
    ])
    text += rng.choice([
        f"{person}检查{machine}时发现{cause}，于是{action}。",
        f"原因是{cause}，{person}{action}。",
    ])
    return text + rng.choice([
        f"{machine}在{end}恢复运行。",
        f"{end}，{machine}恢复运行，没有发现其他问题。",
    ])


def board_english(rng):
    (defect, cause, action), _ = rng.choice(DEFECTS)
    person, number = rng.choice(PEOPLE)[0], rng.randrange(100, 1000)
    text = rng.choice([
        f"The camera found {defect} on board {number}.",
        f"Board {number} has {defect}.",
    ])
    text += f" The result is NG. The likely cause is that {cause}."
    return text + rng.choice([
        f" {person.capitalize()} {action}, and the next boards were OK.",
        f" After {person} {action}, board {number} was repaired and passed.",
    ])


def board_chinese(rng):
    _, (defect, cause, action) = rng.choice(DEFECTS)
    person, number = rng.choice(PEOPLE)[1], rng.randrange(100, 1000)
    text = rng.choice([
        f"相机在{number}号电路板上发现了{defect}。",
        f"{number}号电路板上有{defect}。",
    ])
    text += f"判定结果为 NG，可能的原因是{cause}。"
    return text + rng.choice([
        f"{person}{action}，之后的电路板判定为 OK。",
        f"{person}{action}，{number}号电路板返修后判定为 OK。",
    ])


def clause_english(rng):
    (buyer, seller), _ = rng.choice(PARTIES)
    days, city = rng.choice(DAYS)[0], rng.choice(CITIES)[0]
    body = rng.choice([
        f"The {buyer} pays each invoice within {days} days after receiving it. "
        f"If payment is late, the {seller} may stop deliveries until it is made.",
        f"The {seller} delivers the goods to {city} within {days} days after the order. "
        f"The risk passes to the {buyer} when the goods arrive in {city}.",
        f"Either party may end this contract by {days} days' written notice. "
        f"The {buyer} pays for all goods that the {seller} delivered before that day.",
        f"The {seller} repairs or replaces defective parts free of charge. "
        f"The {buyer} reports a defect within {days} days after finding it.",
        f"Neither party tells others what it learns about the other's business. "
        f"This duty ends {days} days after the end of this contract.",
        f"This contract follows the law of {city}. "
        f"The {buyer} and the {seller} try to settle a dispute within {days} days "
        f"before they go to court.",
    ])
    return rng.choice(["", "", f"Clause {rng.randrange(1, 20)}. "]) + body


def clause_chinese(rng):
    _, (buyer, seller) = rng.choice(PARTIES)
    days, city = rng.choice(DAYS)[1], rng.choice(CITIES)[1]
    body = rng.choice([
        f"{buyer}应当在收到发票之日起{days}日内付款。逾期付款的，{seller}可以暂停交货，直到付清为止。",
        f"{seller}应当在收到订单之日起{days}日内将货物运到{city}。货物到达{city}时，风险转移给{buyer}。",
        f"任何一方均可提前{days}日以书面形式通知对方解除合同。{buyer}应当支付{seller}在此之前交付的全部货物的价款。",
        f"{seller}应当免费修理或者更换有缺陷的零件。{buyer}应当在发现缺陷之日起{days}日内通知{seller}。",
        f"双方对在合作中了解到的商业秘密负有保密义务。合同终止{days}日以后，该义务解除。",
        f"本合同适用{city}的法律。发生争议时，{buyer}与{seller}应当先在{days}日内协商解决，协商不成的，可以向法院起诉。",
    ])
    return rng.choice(["", "", f"第{rng.choice('一二三四五六七八九十')}条　"]) + body


KINDS = [shift_english, shift_chinese, board_english, board_chinese, clause_english, clause_chinese]


def documents(seed):
    """Yields documents without end."""
    rng = random.Random(seed)
    while True:
        yield rng.choice(KINDS)(rng)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for _, text in zip(range(count), documents(1)):
        print(text)


if __name__ == "__main__":
    main()
